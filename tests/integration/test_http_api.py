"""Songs over HTTP: the same from the fake maker and from the tiny model, and the same as the command's."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from acestep.cli.console import run_click
from acestep.cli.main import cli
from acestep.http_api.maker import Maker
from acestep.limits.plan import Overrides
from acestep.serving.song_maker import SongMaker
from tests.api_server import Api, FakeMaker, api_server, error_in


@pytest.fixture(scope="module", params=["fake", "tiny"])
def maker(request: pytest.FixtureRequest) -> Iterator[Maker]:
    if request.param == "fake":
        yield FakeMaker()
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAX_CUDA_VRAM", "8")
        made = SongMaker("tiny", Overrides())
        yield made
        made.close()


@pytest.fixture(scope="module")
def client(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with api_server(maker, tmp_path_factory.mktemp("api")) as served:
        yield served.client()


def test_songs_are_made_watched_and_fetched(client: Api) -> None:
    asked = client.ask(batch=2, steps=1, think=False)
    assert asked["state"] in ("waiting", "running", "finished")
    with client.http.stream("GET", f"/v1/requests/{asked['id']}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in stream.iter_lines() if line]
    names, documents = lines[::2], [json.loads(line.removeprefix("data: ")) for line in lines[1::2]]
    assert [f"event: {document['state']}" for document in documents] == names
    done = documents[-1]
    assert done["state"] == "finished", done
    assert done == client.state(asked["id"])
    assert [song["seed"] for song in done["result"]["songs"]] == [3, 4]
    for song in done["result"]["songs"]:
        file = client.http.get(song["url"])
        assert (file.status_code, file.headers["content-type"]) == (200, "audio/flac")
        assert len(file.content) == song["size_bytes"]
    assert done["result"]["warnings"]
    assert done["error"] is None
    assert client.http.get(f"/v1/requests/{asked['id']}/songs/3").status_code == 404


def test_a_song_that_a_recording_is_needed_for_uses_an_upload(client: Api, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", [[0.1, -0.1]] * 2 * 48_000, 48_000)
    upload = client.upload("../my song.wav", (tmp_path / "x.wav").read_bytes())
    assert upload["name"] == "my-song.wav"
    wish = {"task": "cover", "duration_s": 0, "steps": 1, "mp3_bitrate": 128, "audio_format": "mp3"}
    done = client.until(client.ask(source_audio=upload["id"], **wish)["id"])
    assert done["state"] == "finished", done
    assert client.http.get(done["result"]["songs"][0]["url"]).headers["content-type"] == "audio/mpeg"
    request = (None, json.dumps({"caption": "drums", **wish}))
    with_it = {"request": request, "source_audio": ("x.wav", (tmp_path / "x.wav").read_bytes())}
    at_once = client.http.post("/v1/requests", files=with_it).json()
    assert client.until(at_once["id"])["state"] == "finished"
    broken = client.upload("page.wav", b"<!doctype html><html></html>" * 10)
    failed = client.until(client.ask(reference_audio=broken["id"], steps=1)["id"])
    assert (failed["state"], failed["error"]["kind"], failed["error"]["exit_code"]) == ("failed", "file", 3)
    assert "page.wav" in failed["error"]["message"]
    assert "/" not in failed["error"]["message"].partition("ffmpeg")[0]
    assert client.http.delete(f"/v1/uploads/{upload['id']}").status_code == 204
    gone = client.refused(422, task="cover", source_audio=upload["id"])
    assert gone["kind"] == "input"
    assert "upload it again" in gone["message"]


def test_a_deleted_request_and_its_files_are_gone(client: Api) -> None:
    done = client.until(client.ask(steps=1, think=False)["id"])
    url = done["result"]["songs"][0]["url"]
    assert client.http.get(url).status_code == 200
    assert client.http.delete(f"/v1/requests/{done['id']}").status_code == 204
    for path in (url, f"/v1/requests/{done['id']}", f"/v1/requests/{done['id']}/events"):
        assert error_in(client.http.get(path))["kind"] == "unknown"


def test_missing_weights_fail_the_request_with_the_command_that_gets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACESTEP_CHECKPOINTS_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("MAX_CUDA_VRAM", "4")
    maker = SongMaker("turbo", Overrides())
    with api_server(maker, tmp_path) as served:
        client = served.client()
        failed = client.until(client.ask()["id"])
    maker.close()
    assert (failed["state"], failed["error"]["kind"], failed["error"]["exit_code"]) == ("failed", "weights", 3)
    assert failed["error"]["command"] == "acestep download turbo"
    assert failed["error"]["command"] in failed["error"]["message"]


def test_the_file_of_a_request_is_that_of_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A card on which no language model plans unasked, which takes longer than the song.
    monkeypatch.setenv("MAX_CUDA_VRAM", "4")
    (tmp_path / "api").mkdir()
    maker = SongMaker("tiny", Overrides())
    with api_server(maker, tmp_path / "api") as served:
        client = served.client()
        asked = client.ask(lyrics="la la", duration_s=2, seed=11, bpm=120, steps=2, knobs={"quantization": "fp8"})
        done = client.until(asked["id"])
        assert done["state"] == "finished", done
        file = client.http.get(done["result"]["songs"][0]["url"]).content
    maker.close()
    capsys.readouterr()
    command = "generate --model tiny --json --caption drums --duration 2 --seed 11 --bpm 120 --steps 2"
    words = [*command.split(), "--lyrics", "la la", "--quantization", "fp8", "--out", str(tmp_path)]
    assert run_click(cli, words) == 0
    document = json.loads(capsys.readouterr().out)
    # What this machine lacks is replaced, with the same sentence.
    assert any("fp8" in sentence for sentence in done["result"]["warnings"])
    assert Path(document["songs"][0]["path"]).read_bytes() == file
    result = done["result"]
    same = ("metadata", "plan", "warnings", "songs_per_pass", "decode_path")
    assert {name: result[name] for name in same} == {name: document[name] for name in same}
