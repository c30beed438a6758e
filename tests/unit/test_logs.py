"""`-v` shows log lines with their modules on stderr, and changes nothing else; without it there are none."""

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from acestep.cli.console import run_click
from acestep.cli.main import cli
from acestep.errors import Exit
from acestep.logs import show_logs
from tests.acestep_command import Command, command

__all__ = ["command"]

LINE = re.compile(r"\d\d:\d\d:\d\d (acestep(?:\.\w+)*): (.+)")


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    yield
    show_logs(0)


def said(err: str) -> list[tuple[str, str]]:
    """The modules and what they say, of the lines that are log lines."""
    return [(found[1], found[2]) for line in err.splitlines() if (found := LINE.fullmatch(line))]


def test_it_is_quiet_unless_asked_and_quiet_again_afterwards(command: Command) -> None:
    assert command("plan", "--vram", "8").err == ""
    assert said(command("-v", "plan", "--vram", "8").err)
    assert command("plan", "--vram", "8").err == ""


@pytest.mark.parametrize("flag", ["-v", "-vv", "--verbose"])
def test_stdout_stays_as_it_is(flag: str, command: Command) -> None:
    plain, loud = command("plan", "--json"), command(flag, "plan", "--json")
    assert json.loads(loud.out) == json.loads(plain.out)
    modules = {module for module, _ in said(loud.err)}
    assert modules
    assert all(find_spec(module) for module in modules)
    assert len(said(loud.err)) == len(loud.err.splitlines())


def test_twice_asked_is_said_once(command: Command) -> None:
    once, again = said(command("-v", "plan", "--vram", "8").err), said(command("-v", "plan", "--vram", "8").err)
    assert [text for _, text in again] == [text for _, text in once]


def test_a_song_tells_its_card_its_plan_its_loading_and_every_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    song = ["generate", "--model", "tiny", "--caption", "rain", "--duration", "1", "--out", str(tmp_path), "--json"]
    counts = []
    for flag in ("-v", "-vv"):
        assert run_click(cli, [flag, *song]) == Exit.OK
        out, err = capsys.readouterr()
        stages = [stage["name"] for stage in json.loads(out)["stages"]]
        lines = said(err)
        told = [
            text
            for module, text in lines
            if module == "acestep.engine.pipeline" and re.search(r": \d+\.\d\d s, ", text)
        ]
        assert [text.partition(":")[0] for text in told] == stages
        text = "\n".join(text for _, text in lines)
        assert "the card is" in text
        assert "the plan: tier1" in text
        assert "loading tiny as turbo" in text
        counts.append(len(lines))
    assert counts[1] > counts[0]
