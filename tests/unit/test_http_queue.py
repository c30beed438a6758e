"""Requests over HTTP wait in one queue: limits, cancelling, failures, what is kept, and who may see it."""

import errno
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import torch

from acestep import api
from acestep.audio import write
from acestep.errors import MissingWeightsError, NotEnoughMemoryError, UsageError
from acestep.http_api import queue as queue_module
from acestep.http_api.song_folders import MARK, delete_left_behind
from acestep.serving.bounds import DAY_S, MOST_OF_A_VISITOR
from tests import api_server as fixtures
from tests.api_server import Api, FakeMaker, Served, api_server, error_in, wait_until

maker, served, client = fixtures.maker, fixtures.served, fixtures.client

TOKENS = ("a" * 32, "b" * 32)


def test_requests_are_made_in_their_order_and_say_how_many_are_before_them(client: Api, maker: FakeMaker) -> None:
    names = [client.ask(caption=f"wait {number}")["id"] for number in range(3)]
    client.until(names[0], "running", stage="denoise")
    assert [client.state(name)["ahead"] for name in names] == [0, 1, 2]
    assert [client.state(name)["state"] for name in names] == ["running", "waiting", "waiting"]
    maker.go.set()
    assert [client.until(name)["state"] for name in names] == ["finished"] * 3
    assert maker.made == ["wait 0", "wait 1", "wait 2"]


def test_only_so_many_requests_of_one_client_wait(
    maker: FakeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with api_server(maker, tmp_path, tokens=TOKENS) as served:
        ann, bob = (served.client(token) for token in TOKENS)
        names = [ann.ask(caption="wait")["id"] for _ in range(MOST_OF_A_VISITOR)]
        assert ann.refused(429)["kind"] == "busy"
        bob.ask()
        # One that is cancelled while it waits gives up its place at once.
        ann.http.post(f"/v1/requests/{names[-1]}/cancel").raise_for_status()
        ann.ask()
        assert ann.refused(429)["kind"] == "busy"
        monkeypatch.setattr(queue_module, "MOST_WAITING", MOST_OF_A_VISITOR + 1)
        assert bob.refused(429)["kind"] == "busy"
        maker.go.set()


def test_a_request_names_the_adapters_that_it_is_made_with(client: Api, maker: FakeMaker) -> None:
    folk, rock = maker.adapters
    for wish in (
        {},
        {"adapters": []},
        {"adapters": [{"name": "rock.safetensors"}]},
        {"adapters": [{"name": "rock.safetensors", "scale": -2}, {"name": "folk"}]},
    ):
        client.until(client.ask(**wish)["id"])
    assert maker.used == [None, (), (rock,), (folk, msgspec.structs.replace(rock, scale=-2.0))]
    for wrong in (
        [{"name": "jazz"}],
        [{"name": "folk"}] * 2,
        [{"name": "folk", "scale": 11}],
        [{"name": "/etc"}],
        "folk",
    ):
        assert client.refused(422, adapters=wrong)["kind"] == "input"
    assert "folk, rock.safetensors" in client.refused(422, adapters=[{"name": "jazz"}])["message"]


def test_a_client_has_its_limit_whatever_address_it_says_it_has(served: Served, maker: FakeMaker) -> None:
    for number in range(MOST_OF_A_VISITOR):
        served.client(**{"X-Forwarded-For": f"192.0.2.{number}"}).ask(caption="wait")
    assert served.client(**{"X-Forwarded-For": "192.0.2.99"}).refused(429)["kind"] == "busy"
    maker.go.set()


def test_a_request_is_cancelled_in_the_middle_or_before_it_begins(client: Api, maker: FakeMaker) -> None:
    running, waiting = client.ask(caption="wait")["id"], client.ask(caption="wait too")["id"]
    client.until(running, "running", stage="denoise")
    for name in (waiting, running):
        assert client.http.post(f"/v1/requests/{name}/cancel").status_code == 200
        said = client.until(name)
        assert (said["state"], said["error"], said["result"]) == ("stopped", None, None)
    done = client.until(client.ask()["id"])
    assert (done["state"], maker.made) == ("finished", ["drums"])
    # What has ended stays as it is.
    assert client.http.post(f"/v1/requests/{done['id']}/cancel").json() == done


def test_a_running_request_that_is_deleted_stops_and_leaves_no_file(
    client: Api, maker: FakeMaker, tmp_path: Path
) -> None:
    name = client.ask(caption="wait")["id"]
    client.until(name, "running", stage="denoise")
    with client.http.stream("GET", f"/v1/requests/{name}/events") as stream:
        assert client.http.delete(f"/v1/requests/{name}").status_code == 204
        # The stream ends although the request has no final event any more.
        stream.read()
    assert client.until(client.ask()["id"])["state"] == "finished"
    assert not (tmp_path / "out" / name).exists()
    assert maker.made == ["drums"]


FAILURES: dict[str, tuple[BaseException, str, int, str | None]] = {
    "weights": (MissingWeightsError("turbo", "is not here", command="acestep download turbo"), "weights", 3, "acestep"),
    "card": (NotEnoughMemoryError("The card ran out of memory."), "memory", 5, None),
    "host": (MemoryError(), "memory", 5, None),
    "between stages": (torch.OutOfMemoryError("tried to allocate 9 GiB"), "memory", 5, None),
    "knobs": (UsageError("lm 4B needs 9 GiB, and 3 GiB are there"), "input", 2, None),
    "surprise": (RuntimeError("a secret at /home/ann"), "unexpected", 5, None),
}


def test_each_failure_has_its_kind_and_its_sentence_and_the_next_request_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maker = FakeMaker({caption: error for caption, (error, *_) in FAILURES.items()})
    with api_server(maker, tmp_path) as served:
        client = served.client()
        names = {caption: client.ask(caption=caption)["id"] for caption in FAILURES}
        assert client.until(client.ask()["id"])["state"] == "finished"
        for caption, (_, kind, code, command) in FAILURES.items():
            said = client.state(names[caption])
            error = said["error"]
            assert (said["state"], error["kind"], error["exit_code"]) == ("failed", kind, code), caption
            assert (error["command"] or "").startswith(command or "")
            assert len(error["message"]) > 10
            assert "secret" not in error["message"]
            assert ("memory" in error["message"].lower()) == (kind == "memory")
    assert capsys.readouterr().err.count("RuntimeError: a secret") == 1
    assert maker.rests == len(FAILURES)


def test_a_full_disk_fails_the_request_with_a_sentence_that_does_not_say_where_the_server_writes(
    client: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "out" / "x"))

    with monkeypatch.context() as patch:
        patch.setattr(write, "_put", full)
        said = client.until(client.ask()["id"])
    assert (said["state"], said["error"]["kind"], said["error"]["exit_code"]) == ("failed", "run", 5)
    assert "is the disk full?" in said["error"]["message"]
    wait_until(lambda: not (tmp_path / "out" / said["id"]).exists())
    assert str(tmp_path) not in said["error"]["message"]


def test_a_token_sees_only_its_own_requests_songs_and_uploads(maker: FakeMaker, tmp_path: Path) -> None:
    with api_server(maker, tmp_path, tokens=TOKENS) as served:
        ann, bob = (served.client(token) for token in TOKENS)
        done = ann.until(ann.ask()["id"])
        upload = ann.upload("x.wav", b"x")
        song = done["result"]["songs"][0]["url"]
        own = f"/v1/requests/{done['id']}"
        for path in (own, f"{own}/events", song):
            assert error_in(bob.http.get(path))["kind"] == "unknown"
        for answer in (
            bob.http.post(f"{own}/cancel"),
            bob.http.delete(own),
            bob.http.delete(f"/v1/uploads/{upload['id']}"),
        ):
            assert answer.status_code == 404
        assert bob.refused(422, reference_audio=upload["id"])["kind"] == "input"
        assert ann.http.get(song).status_code == 200


def test_ids_are_long_and_never_the_same(client: Api) -> None:
    names = [client.until(client.ask()["id"])["id"] for _ in range(3)]
    names += [client.upload("x.wav", b"x")["id"] for _ in range(3)]
    assert len(set(names)) == 6
    assert {len(name) for name in names} == {32}


@contextmanager
def aged(tmp_path: Path, maker: FakeMaker, clock: list[float]) -> Iterator[Served]:
    """A server whose clock a test sets."""
    with pytest.MonkeyPatch.context() as patch, api_server(maker, tmp_path) as served:
        patch.setattr(served.queue, "_clock", lambda: clock[0])
        patch.setattr(served.recordings, "_clock", lambda: clock[0])
        yield served


def test_requests_and_uploads_are_deleted_after_a_day(maker: FakeMaker, tmp_path: Path) -> None:
    clock = [0.0]
    with aged(tmp_path, maker, clock) as served:
        client = served.client()
        old, upload = client.until(client.ask()["id"]), client.upload("x.wav", b"x")
        clock[0] = DAY_S / 2
        new = client.until(client.ask()["id"])
        clock[0] = DAY_S + 1
        served.queue.expire()
        served.recordings.expire()
        assert client.http.get(f"/v1/requests/{old['id']}").status_code == 404
        assert client.http.get(new["result"]["songs"][0]["url"]).status_code == 200
        assert client.http.delete(f"/v1/uploads/{upload['id']}").status_code == 404
        assert [path.name for path in (tmp_path / "out").iterdir()] == [new["id"]]
        assert list((tmp_path / "uploads").iterdir()) == []


def test_a_server_that_ends_deletes_its_songs_and_nothing_else(maker: FakeMaker, tmp_path: Path) -> None:
    kept = tmp_path / "out" / ("0" * 32) / "song.flac"
    kept.parent.mkdir(parents=True)
    kept.touch()
    with api_server(maker, tmp_path) as served:
        client = served.client()
        done = client.until(client.ask()["id"])
        assert list((tmp_path / "out" / done["id"]).glob("*.flac"))
    assert list((tmp_path / "out").rglob("*.*")) == [kept]


def test_what_a_killed_server_left_behind_is_deleted_after_a_day(maker: FakeMaker, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with api_server(maker, tmp_path) as served:
        client = served.client()
        left = out / client.until(client.ask()["id"])["id"]
        others = [out / ("0" * 32), out / "my songs"]
        for folder in others:
            folder.mkdir()
        (others[1] / MARK).touch()
        delete_left_behind(out)
        assert list(left.glob("*.flac"))
        delete_left_behind(out, now=time.time() + DAY_S + 60)
        assert sorted(out.iterdir()) == sorted(others)


def test_the_oldest_songs_make_way_when_they_are_too_many_or_too_large(
    client: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "MOST_SESSIONS", 2)
    names = [client.until(client.ask()["id"])["id"] for _ in range(3)]
    wait_until(lambda: client.http.get(f"/v1/requests/{names[0]}").status_code == 404)
    assert client.state(names[1])["state"] == "finished"
    monkeypatch.setattr(queue_module, "MOST_SONG_BYTES", 0)
    last = client.until(client.ask()["id"])
    wait_until(lambda: client.http.get(f"/v1/requests/{names[2]}").status_code == 404)
    assert client.http.get(last["result"]["songs"][0]["url"]).status_code == 200


def test_a_server_that_ends_stops_the_run_ends_the_streams_and_takes_nothing(maker: FakeMaker, tmp_path: Path) -> None:
    with api_server(maker, tmp_path) as served:
        client = served.client()
        running, waiting = client.ask(caption="wait")["id"], client.ask()["id"]
        client.until(running, "running", stage="denoise")
        seen: list[httpx.Response] = []
        watching = threading.Thread(target=lambda: seen.append(client.http.get(f"/v1/requests/{waiting}/events")))
        watching.start()
        served.queue.stop()
        watching.join(10)
        assert not watching.is_alive()
        assert "event: waiting" in seen[0].text
        assert client.refused(503)["kind"] == "ending"
        assert client.until(running)["state"] == "stopped"
    assert maker.made == []
    assert list((tmp_path / "out").iterdir()) == []


def test_what_the_result_says_is_what_the_command_says_without_the_place_of_the_files(
    client: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents: list[dict[str, Any]] = []
    write_songs = api.write_songs
    monkeypatch.setattr(api, "write_songs", lambda *given: documents.append(write_songs(*given)) or documents[-1])
    result = client.until(client.ask()["id"])["result"]
    document = json.loads(json.dumps(documents[0]))
    assert set(result) == set(document)
    assert set(result["songs"][0]) == set(document["songs"][0]) - {"path"} | {"url", "size_bytes"}
    assert {name: result[name] for name in result if name != "songs"} == {
        name: document[name] for name in document if name != "songs"
    }
