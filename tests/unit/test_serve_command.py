"""`acestep serve`: what it refuses, before any heavy import, and what the server gets."""

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from acestep.cli import options
from acestep.cli.console import run_click
from acestep.cli.main import cli
from acestep.errors import Exit
from acestep.knobs import Offload, Variant
from tests.processes import imported_by

TOKEN = "t" * 16
FIXTURES = Path(__file__).parent.parent / "fixtures" / "adapters"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the server was opened with."""
    calls: list[dict[str, Any]] = []
    module = ModuleType("acestep.http_api.serve")
    module.serve_api = lambda **how: calls.append(how)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acestep.http_api.serve", module)
    monkeypatch.delenv("ACESTEP_TOKEN", raising=False)
    return calls


@pytest.mark.parametrize(
    "reach",
    ["--server-name 0.0.0.0", "--server-name ::", "--server-name 192.168.1.5", "--server-name music.example"],
)
def test_a_server_that_others_reach_needs_a_token_or_the_word_that_it_needs_none(
    reach: str, opened: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    serve = ["serve", *reach.split()]
    assert run_click(cli, serve) == Exit.USAGE
    assert "--token" in capsys.readouterr().err
    assert opened == []
    assert run_click(cli, [*serve, "--token", TOKEN]) == Exit.OK
    assert run_click(cli, [*serve, "--no-auth"]) == Exit.OK
    assert [(how["tokens"], how["alone"]) for how in opened] == [((TOKEN,), False), ((), False)]
    # Its own folder: the songs of `acestep ui` and `acestep generate` stay when the server ends.
    assert {str(how["out"]) for how in opened} == {str(Path("out/api"))}


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_this_machine_alone_needs_none(name: str, opened: list[dict[str, Any]]) -> None:
    assert run_click(cli, ["serve", "--server-name", name]) == Exit.OK
    assert (opened[0]["server_name"], opened[0]["tokens"], opened[0]["alone"]) == (name, (), True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--token short", "at least 16"),
        ("--token", "requires an argument"),
        ("--token=", "at least 16"),
        ("--token 0123456789abcde\u00e9", "at least 16"),
        (f"--token {TOKEN} --no-auth", "one of"),
        ("--port 70000", "port"),
        ("--model= --out x", "--model is empty"),
        ("--offload sideways", "offload"),
        ("--share", "--share"),
    ],
)
def test_what_cannot_be_is_a_usage_error(
    arguments: str, said: str, opened: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_click(cli, ["serve", *arguments.split()]) == Exit.USAGE
    assert said in capsys.readouterr().err
    assert opened == []


def test_the_server_gets_what_was_asked_for(opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACESTEP_TOKEN", f"{TOKEN} {TOKEN[::-1]}x")
    words = "--port 0 --model xl-turbo --offload cpu --allow-host Songs.Example --init-service --out here"
    assert run_click(cli, ["serve", *words.split()]) == Exit.OK
    (how,) = opened
    assert how["tokens"] == (TOKEN, f"{TOKEN}x")
    assert (how["port"], how["model"], how["init_service"], str(how["out"])) == (0, "xl-turbo", True, "here")
    assert (how["overrides"].variant, how["overrides"].offload) == (Variant.XL_TURBO, Offload.CPU)
    assert how["hosts"] == ("songs.example",)


def test_its_help_imports_neither_torch_nor_a_server() -> None:
    heavy = {"torch", "numpy", "fastapi", "uvicorn", "gradio", "pydantic"}
    assert not heavy & imported_by("-m", "acestep", "serve", "--help")


def test_adapters_are_looked_at_before_the_server_is_opened(
    opened: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = FIXTURES / "peft-lora"
    assert run_click(cli, ["serve", "--lora", f"{adapter}:0.5"]) == Exit.OK
    assert [(one.path, one.scale) for one in opened[0]["adapters"]] == [(adapter, 0.5)]
    assert run_click(cli, ["serve", "--lora", str(tmp_path / "nowhere")]) == Exit.INVALID
    assert "nowhere" in capsys.readouterr().err
    assert len(opened) == 1


def test_adapters_of_the_same_name_are_refused(
    opened: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = FIXTURES / "peft-lora"
    other = shutil.copytree(adapter, tmp_path / adapter.name)
    assert run_click(cli, ["serve", "--lora", str(adapter), "--lora", str(other)]) == Exit.USAGE
    assert "'peft-lora'" in capsys.readouterr().err
    assert opened == []


def test_a_device_that_is_not_here_is_refused_before_the_server_is_opened(
    opened: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "installed_build", lambda: None)
    assert run_click(cli, ["serve", "--device", "nope"]) == Exit.USAGE
    assert "'nope'" in capsys.readouterr().err
    assert opened == []
