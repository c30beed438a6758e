"""`acestep ui`: what it refuses, before any heavy import."""

import socket
import sys
from types import ModuleType
from typing import Any

import pytest

from acestep.cli import options
from acestep.cli.console import run_click
from acestep.cli.main import cli
from acestep.errors import Exit
from acestep.knobs import Offload, Variant
from acestep.logs import show_logs
from acestep.serving.own_address import is_allowed
from acestep.version import version


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the page was opened with."""
    calls: list[dict[str, Any]] = []
    module = ModuleType("acestep.ui.serve")
    module.serve_page = lambda **how: calls.append(how)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acestep.ui.serve", module)
    return calls


@pytest.mark.parametrize(
    "reach",
    [
        "--share",
        "--server-name 0.0.0.0",
        "--server-name ::",
        "--server-name 192.168.1.5",
        "--server-name music.example",
        "--share --server-name 127.0.0.1",
    ],
)
def test_a_page_that_others_reach_needs_a_guard_or_the_word_that_it_needs_none(
    reach: str, opened: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_click(cli, ["ui", *reach.split()]) == Exit.USAGE
    assert "--auth" in capsys.readouterr().err
    assert opened == []
    assert run_click(cli, ["ui", *reach.split(), "--auth", "ann:a:b"]) == Exit.OK
    assert run_click(cli, ["ui", *reach.split(), "--no-auth"]) == Exit.OK
    assert [how["auth"] for how in opened] == [(("ann", "a:b"),), ()]


@pytest.mark.parametrize("name", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"])
def test_this_machine_alone_needs_none(name: str, opened: list[dict[str, Any]]) -> None:
    assert run_click(cli, ["--server-name", name]) == Exit.OK
    assert opened[0]["server_name"] == name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--auth ann", "USER:PASSWORD"),
        ("--auth :secret", "USER:PASSWORD"),
        ("--auth ann:", "USER:PASSWORD"),
        ("--auth ann:secret --no-auth", "one of"),
        ("--port 70000", "port"),
        ("--port -1", "port"),
        ("--language tlh", "language"),
        ("--offload sideways", "offload"),
        ("--model= --out x", "--model is empty"),
        ("--model turbo --variant base", "is turbo, not base"),
    ],
)
def test_what_cannot_be_is_a_usage_error(
    arguments: str, said: str, opened: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_click(cli, ["ui", *arguments.split()]) == Exit.USAGE
    assert said in capsys.readouterr().err
    assert opened == []


def test_the_page_gets_what_was_asked_for(opened: list[dict[str, Any]]) -> None:
    asked = "--port 0 --language ko --init-service --model xl-turbo --offload cpu+dit --out songs"
    assert run_click(cli, asked.split()) == Exit.OK
    how = opened[0]
    assert (how["port"], how["language"], how["init_service"], how["model"]) == (0, "ko", True, "xl-turbo")
    assert (how["overrides"].offload, how["overrides"].variant) == (Offload.CPU_DIT, Variant.XL_TURBO)
    assert str(how["out"]) == "songs"
    assert run_click(cli, ["ui", "--model", "tiny", "--variant", "base"]) == Exit.OK
    assert opened[1]["overrides"].variant == Variant.BASE
    assert (how["share"], how["auth"], how["server_name"]) == (False, (), "127.0.0.1")


@pytest.mark.parametrize(
    ("arguments", "port"),
    [
        ("-v", 7860),
        ("--verbose", 7860),
        ("-vv --port 0", 0),
        ("-v -v --port 0", 0),
        ("--verbose ui --port 0", 0),
        ("ui", 7860),
    ],
)
def test_options_of_the_program_come_before_those_of_the_page(
    arguments: str, port: int, opened: list[dict[str, Any]]
) -> None:
    try:
        assert run_click(cli, arguments.split()) == Exit.OK
    finally:
        show_logs(0)
    assert [how["port"] for how in opened] == [port]


@pytest.mark.parametrize("arguments", ["--version", "-v --version", "--version --port 0", "-h", "-v --help"])
def test_what_only_asks_opens_no_page(
    arguments: str, opened: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_click(cli, arguments.split()) == Exit.OK
    assert opened == []
    out, err = capsys.readouterr()
    assert version() in out if "--version" in arguments else "Commands:" in out
    assert err == ""


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run_click(cli, ["ui", "--port", port, "--model", "tiny"]) == Exit.USAGE
    assert port in capsys.readouterr().err
    assert run_click(cli, ["ui", "--port", "0", "--server-name", "192.0.2.1", "--no-auth"]) == Exit.USAGE
    assert "--server-name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "origin", "may"),
    [
        ("127.0.0.1:7860", "", True),
        ("127.0.0.1:7860", "http://127.0.0.1:7860", True),
        ("localhost:7860", "http://localhost:7860", True),
        ("[::1]:7860", "http://[::1]:7860", True),
        ("evil.example", "", False),
        ("evil.example:7860", "http://evil.example:7860", False),
        ("127.0.0.1.evil.example", "", False),
        ("127.0.0.1:7860", "http://evil.example", False),
        ("127.0.0.1:7860", "http://127.0.0.1:8080", False),
        ("127.0.0.1:7860", "null", False),
        ("", "", False),
        ("[", "", False),
    ],
)
def test_a_page_for_this_machine_answers_to_its_own_name_and_its_own_page(host: str, origin: str, may: bool) -> None:
    assert is_allowed(host, origin) == may


def test_the_page_listens_on_loopback_unless_access_is_allowed(opened: list[dict[str, Any]]) -> None:
    for arguments in ([], ["--auth", "ann:secret"], ["--no-auth"]):
        assert run_click(cli, ["ui", *arguments]) == Exit.OK
    assert [how["alone"] for how in opened] == [True, False, False]


def test_a_device_that_is_not_here_is_refused_before_the_page_is_opened(
    opened: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "installed_build", lambda: None)
    assert run_click(cli, ["ui", "--device", "nope"]) == Exit.USAGE
    assert "'nope'" in capsys.readouterr().err
    assert opened == []
