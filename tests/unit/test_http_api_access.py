"""Who may use the HTTP API: clients with a token, programs on this machine, and no page of another site."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api_server import FakeMaker, Served, api_server, error_in, wait_until

TOKEN = "t" * 16
WRONG = ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xe9")
PATHS = ("/openapi.json", "/v1/plan", f"/v1/requests/{'0' * 32}", f"/v1/requests/{'0' * 32}/events")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with api_server(FakeMaker(), tmp_path_factory.mktemp("guarded"), tokens=("x" * 16, TOKEN), alone=False) as served:
        yield served


@pytest.mark.parametrize("authorization", WRONG)
def test_without_the_token_nothing_is_answered_and_nothing_is_taken(guarded: Served, authorization: str) -> None:
    client = guarded.client()
    headers = {"authorization": authorization.encode("latin-1")} if authorization else {}
    answers = [client.http.get(path, headers=headers) for path in PATHS]
    answers.append(client.http.post("/v1/requests", json={"caption": "x"}, headers=headers))
    answers.append(client.http.post("/v1/uploads", files={"file": ("x.wav", b"x")}, headers=headers))
    for answer in answers:
        assert (answer.status_code, error_in(answer)["kind"]) == (401, "token")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_with_a_token_everything_is_answered(guarded: Served) -> None:
    client = guarded.client(TOKEN)
    assert [client.http.get(path).status_code for path in PATHS] == [200, 200, 404, 404]
    assert client.until(client.ask()["id"])["state"] == "finished"


FOREIGN = ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"})


@pytest.mark.parametrize("headers", FOREIGN)
def test_another_host_or_the_page_of_another_site_is_refused_even_with_the_token(
    guarded: Served, headers: dict[str, str]
) -> None:
    answer = guarded.client(TOKEN, **headers).http.post("/v1/requests", json={"caption": "x"})
    assert (answer.status_code, error_in(answer)["kind"]) == (403, "address")
    assert "own address alone" in error_in(answer)["message"]


def test_a_server_of_this_machine_alone_answers_to_its_loopback_names(tmp_path: Path) -> None:
    with api_server(FakeMaker(), tmp_path, names={"studio.local"}) as served:
        port = served.address.rpartition(":")[2]
        for host, status in (
            (f"127.0.0.1:{port}", 200),
            (f"localhost:{port}", 200),
            ("studio.local", 200),
            (f"192.168.1.5:{port}", 403),
            ("evil.example", 403),
        ):
            assert served.client(host=host).http.get("/v1/plan").status_code == status, host
        assert served.client(origin=served.address).http.get("/v1/plan").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/", 404, "unknown"),
        ("GET", "/docs", 404, "unknown"),
        ("GET", "/v1/requests/", 404, "unknown"),
        ("PUT", "/v1/requests", 405, "method"),
        ("GET", "/v1/requests", 405, "method"),
        ("GET", "/v1/requests/..%2f..%2fetc%2fpasswd", 404, "unknown"),
        ("GET", "/v1/requests/short", 422, "input"),
    ],
)
def test_everything_else_has_the_same_form_of_error(
    guarded: Served, method: str, path: str, status: int, kind: str
) -> None:
    answer = guarded.client(TOKEN).http.request(method, path)
    assert (answer.status_code, error_in(answer)["kind"]) == (status, kind)
    if status == 405:
        assert answer.headers["allow"] == "POST"


def test_an_error_that_was_not_expected_is_told_in_the_same_form_and_in_the_log(
    guarded: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(guarded.queue, "plan", fail)
    answer = guarded.client(TOKEN).http.get("/v1/plan")
    assert (answer.status_code, error_in(answer)["kind"], error_in(answer)["exit_code"]) == (500, "unexpected", 5)
    assert "secret" not in answer.text
    # The log is written after the answer.
    wait_until(lambda: "secret" in caplog.text)


def test_a_song_is_sent_whole_whatever_part_is_asked_for(guarded: Served) -> None:
    client = guarded.client(TOKEN)
    song = client.until(client.ask()["id"])["result"]["songs"][0]
    whole = client.http.get(song["url"])
    for number, status in (("0", 422), ("x", 422), ("2", 404)):
        assert client.http.get(f"{song['url'].rpartition('/')[0]}/{number}").status_code == status
    for part in ("bytes=0-9", "bytes=999999999-", "nonsense"):
        answer: httpx.Response = client.http.get(song["url"], headers={"range": part})
        assert (answer.status_code, answer.content) == (200, whole.content)
