"""Recordings that clients upload over HTTP: bounded, kept under any name, and deleted when they are not needed."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from acestep.http_api import forms, request_routes
from acestep.http_api import recordings as recordings_module
from acestep.serving.uploads import Uploads
from tests import api_server as fixtures
from tests.api_server import Api, FakeMaker, api_server, error_in, wait_until

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
        assert (large.status_code, error_in(large)["kind"]) == (413, "size")

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
    wait_until(lambda: stored() == [])
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
