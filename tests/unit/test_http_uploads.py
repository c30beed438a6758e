"""Recordings that clients upload over HTTP: bounded, kept under any name, and deleted when they are not needed."""

import errno
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from acestep.http_api import forms, request_routes, steady
from acestep.http_api import recordings as recordings_module
from acestep.serving.uploads import Uploads
from tests import api_server as fixtures
from tests.api_server import Api, FakeMaker, Served, api_server, error_in, wait_until

maker, served, client = fixtures.maker, fixtures.served, fixtures.client


def test_uploads_fill_their_room_and_those_that_a_request_needs_stay(maker: FakeMaker, tmp_path: Path) -> None:
    with api_server(maker, tmp_path, uploads=Uploads(most_bytes=1_000)) as served:
        client = served.client()
        first = client.upload("1.wav", bytes(400))
        running = client.ask(caption="wait")["id"]
        name = client.ask(reference_audio=first["id"])["id"]
        too_much = client.http.post("/v1/uploads", files={"file": ("2.wav", bytes(700))})
        assert (too_much.status_code, error_in(too_much)["kind"]) == (413, "size")
        in_use = client.http.delete(f"/v1/uploads/{first['id']}")
        assert (in_use.status_code, error_in(in_use)["kind"]) == (409, "busy")
        client.http.post(f"/v1/requests/{name}/cancel").raise_for_status()
        client.upload("2.wav", bytes(700))
        assert client.http.delete(f"/v1/uploads/{first['id']}").status_code == 404
        client.http.post(f"/v1/requests/{running}/cancel").raise_for_status()


@contextmanager
def begun(client: Api, size: int, sent: bytes = b"") -> Iterator[socket.socket]:
    """An upload that says its size, of which `sent` is all that comes."""
    address = httpx.URL(client.address)
    head = (
        f"POST /v1/uploads HTTP/1.1\r\nHost: {address.netloc.decode()}\r\nContent-Length: {size}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    with socket.create_connection((address.host, address.port or 80), timeout=fixtures.PATIENCE_S) as connection:
        connection.sendall(head.encode() + sent)
        yield connection


def test_an_upload_of_which_nothing_comes_deletes_no_other_and_gives_its_place_back(
    maker: FakeMaker, tmp_path: Path
) -> None:
    uploads = Uploads(most_bytes=1_000)
    with api_server(maker, tmp_path, uploads=uploads) as served:
        client = served.client()
        other = client.upload("1.wav", bytes(400))
        with begun(client, 900):
            wait_until(lambda: uploads._arriving == 900)
            assert served.recordings.path_of(other["id"], None).exists()
        wait_until(lambda: uploads._arriving == 0)


def test_an_upload_that_breaks_off_leaves_no_file_and_no_traceback(
    maker: FakeMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with api_server(maker, tmp_path) as served:
        with begun(served.client(), 900, b"--x\r\n"):
            wait_until(lambda: bool(served.recordings._arriving))
        wait_until(lambda: not served.recordings._arriving)
    assert list((tmp_path / "uploads").iterdir()) == []
    assert [record for record in caplog.records if record.exc_info] == []


def test_only_so_many_uploads_of_one_client_come_at_once(client: Api, served: Served) -> None:
    post = client.http.post
    with begun(client, 900), begun(client, 900):
        wait_until(lambda: served.recordings._arriving.total() == recordings_module.MOST_ARRIVING)
        refused = post("/v1/uploads", files={"file": ("x.wav", b"x")})
        assert (refused.status_code, error_in(refused)["kind"]) == (429, "busy")
    wait_until(lambda: not served.recordings._arriving)
    assert post("/v1/uploads", files={"file": ("x.wav", b"x")}).status_code == 201


def test_an_upload_that_pauses_for_too_long_is_refused_and_one_that_keeps_coming_is_not(
    client: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steady, "PAUSE_S", 0.2)
    with begun(client, 900, b"--x\r\n") as connection:
        assert connection.recv(64).startswith(b"HTTP/1.1 408")
    monkeypatch.setattr(steady, "SLOWEST_BYTES_PER_S", 1)
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="x.wav"\r\n\r\n'
    whole = part + b"x\r\n--x--\r\n"
    with begun(client, len(whole), part) as connection:
        time.sleep(0.2)
        connection.sendall(whole.removeprefix(part))
        assert connection.recv(64).startswith(b"HTTP/1.1 201")


def test_an_upload_says_its_size_and_is_a_form_with_one_file(
    client: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x"

    post = client.http.post
    form = {"content-type": "multipart/form-data; boundary=x"}
    answers = [
        (post("/v1/uploads", content=pieces(), headers=form), 411, "size"),
        (post("/v1/uploads", content=b"x"), 415, "type"),
        (post("/v1/uploads", content=b"x", headers=form), 422, "input"),
        (post("/v1/uploads", files={"other": ("x.wav", b"x")}), 422, "input"),
        (post("/v1/uploads", files=[("file", ("x.wav", b"x")), ("file", ("y.wav", b"y"))]), 422, "input"),
    ]
    for answer, status, kind in answers:
        assert (answer.status_code, error_in(answer)["kind"]) == (status, kind), answer.text

    with monkeypatch.context() as patch:
        patch.setattr(forms, "LARGEST_UPLOAD_BYTES", 100)
        large = post("/v1/uploads", files={"file": ("x.wav", bytes(200))})
        # The form may have more than one of its files.
        one = {"request": (None, '{"caption": "drums"}'), "source_audio": ("x.wav", bytes(101))}
        for answer in (large, post("/v1/requests", files=one)):
            assert (answer.status_code, error_in(answer)["kind"]) == (413, "size")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(recordings_module.shutil, "copyfileobj", full)
    refused = post("/v1/uploads", files={"file": ("x.wav", b"x")})
    assert (refused.status_code, error_in(refused)["message"]) == (
        507,
        "the server's disk refused the upload (No space left on device); is it full?",
    )
    assert list((tmp_path / "uploads").iterdir()) == []


def test_an_upload_may_have_any_name_and_is_kept_in_its_own_folder(client: Api, tmp_path: Path) -> None:
    for name in ("..", "/etc/passwd", "a\\b:c.wav", "\U00020000" * 300 + ".flac", "\0.wav", "-", "한국어.mp3"):
        upload = client.upload(name, b"x")
        (kept,) = (tmp_path / "uploads" / upload["id"]).iterdir()
        assert kept.name == upload["name"]
        assert kept.suffix == (Path(name).suffix if len(Path(name).suffix) > 1 else ""), name


def test_the_oldest_uploads_make_way_when_they_are_too_many(client: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings_module, "MOST_UPLOADS", 2)
    names = [client.upload("x.wav", b"x")["id"] for _ in range(3)]
    assert [client.http.delete(f"/v1/uploads/{name}").status_code for name in names] == [404, 204, 204]


def test_recordings_that_came_with_requests_which_have_ended_push_no_upload_out(
    client: Api, maker: FakeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings_module, "MOST_UPLOADS", 2)
    upload = client.upload("x.wav", b"x")["id"]
    for _ in range(3):
        request = (None, json.dumps({"caption": "drums", "task": "cover"}))
        taken = client.http.post("/v1/requests", files={"request": request, "source_audio": ("x.wav", b"x")})
        client.until(taken.json()["id"])
    assert client.http.delete(f"/v1/uploads/{upload}").status_code == 204


def test_uploads_that_made_room_for_others_count_no_more(
    maker: FakeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings_module, "MOST_UPLOADS", 2)
    with api_server(maker, tmp_path, uploads=Uploads(most_bytes=1_000)) as served:
        client = served.client()
        first, second = (client.upload(f"{number}.wav", bytes(400))["id"] for number in range(2))
        served.recordings.path_of(second, None).unlink()
        client.upload("x.wav", b"x")
        assert served.recordings.path_of(first, None).exists()


def test_a_recording_may_come_with_its_request_and_is_deleted_when_that_has_ended(
    client: Api, maker: FakeMaker, tmp_path: Path
) -> None:
    def ask(*extra: tuple[str, Any], **fields: Any) -> httpx.Response:
        request = ("request", (None, json.dumps({"caption": "wait", "task": "cover", **fields})))
        return client.http.post("/v1/requests", files=[request, *extra])

    def stored() -> list[Path]:
        return list((tmp_path / "uploads").rglob("*.wav"))

    recording = ("source_audio", ("x.wav", b"x"))
    for answer, status in (
        (ask(), 422),
        (ask(recording, bpm=7), 422),
        (ask(recording, recording), 422),
        (ask(recording, source_audio="0" * 32), 422),
        (ask(("other", ("x.wav", b"x"))), 422),
        (ask(("source_audio", (None, "/etc/passwd"))), 422),
        (client.http.post("/v1/requests", files=[recording]), 422),
        (client.http.post("/v1/requests", content=b"x", headers={"content-type": "text/plain"}), 415),
    ):
        assert (answer.status_code, error_in(answer)["exit_code"]) == (status, 2), answer.text
    assert stored() == []
    running = client.ask(caption="wait")["id"]
    taken = ask(recording)
    assert taken.status_code == 202, taken.text
    assert len(stored()) == 1
    maker.go.set()
    # The file is no sound.
    said = client.until(taken.json()["id"])
    assert (said["state"], said["error"]["kind"]) == ("failed", "file")
    wait_until(lambda: list((tmp_path / "uploads").iterdir()) == [])
    assert client.until(running)["state"] == "finished"


def test_a_body_that_is_too_large_is_refused(client: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def pieces() -> Iterator[bytes]:
        yield from [b" " * 60] * 3

    for module in (forms, request_routes):
        monkeypatch.setattr(module, "MOST_BODY_BYTES", 100)
    headers = {"content-type": "application/json"}
    for content in (b" " * 101, pieces()):
        answer = client.http.post("/v1/requests", content=content, headers=headers)
        assert (answer.status_code, error_in(answer)["kind"]) == (413, "size")
    form = [("request", ("request.json", b" " * 101))]
    assert client.http.post("/v1/requests", files=form).status_code == 413
