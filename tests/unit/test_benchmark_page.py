"""BENCHMARK.md says what its commands print, and the tool that writes it changes nothing else."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.cli import console
from acestep.errors import Exit, RunFailedError
from tests.pages import comparable, program
from tools.refresh_page import refreshed, run_page_command, steps, trimmed

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "BENCHMARK.md"
STEPS = list(steps(PAGE.read_text(encoding="utf-8")))
QUICK = [step for step in STEPS if "slow" not in step.marks]


@pytest.fixture(autouse=True)
def without_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("MAX_CUDA_VRAM", "MAX_MPS_VRAM"):
        monkeypatch.delenv(name, raising=False)


def test_what_the_quick_commands_print_is_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(QUICK) >= 5
    for name in ("profile_inference.py", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for step in QUICK:
        ours = program(step)
        if ours is None:
            printed = run_page_command(step.command, tmp_path)
        else:
            assert console.run_click(*ours) == Exit.OK, step.command
            printed = trimmed(capsys.readouterr().out)
        assert comparable(printed, step) == comparable(step.output, step), step.command


def test_every_mode_is_on_the_page() -> None:
    for mode in ("profile", "benchmark", "tier-test", "create_sample"):
        assert any(f"--mode {mode}" in step.command for step in STEPS)


lines = st.text("ab $`\n", max_size=30)


@given(before=lines, after=lines, outputs=st.lists(st.text("ab\n", max_size=9), min_size=2, max_size=2))
def test_only_what_is_below_a_command_changes_and_the_second_time_nothing_does(
    before: str, after: str, outputs: list[str]
) -> None:
    before, after = (text.replace("```", "") for text in (before, after))
    page = f"{before}\n```console timed\n$ one\nold\n$ two\n```\n{after}"
    printed = dict(zip(("one", "two"), map(trimmed, outputs), strict=True))
    new = refreshed(page, printed.__getitem__)
    assert new == f"{before}\n```console timed\n$ one\n{printed['one']}$ two\n{printed['two']}```\n{after}"
    assert refreshed(new, printed.__getitem__) == new
    assert [(step.command, step.output) for step in steps(new)] == list(printed.items())


def test_a_command_that_fails_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"exit code 3.*no luck"):
        run_page_command("echo no luck >&2; exit 3", tmp_path)
    assert run_page_command("echo 'a  '; echo; echo", tmp_path) == "a\n"


def test_numbers_of_timed_outputs_may_change_and_words_may_not() -> None:
    timed = next(step for step in STEPS if step.marks == {"timed"})
    slower = re.sub(r"[0-9]+\.[0-9]+", "1234.5", timed.output)
    assert slower != timed.output
    assert comparable(slower, timed) == comparable(timed.output, timed)
    assert comparable(timed.output.replace("denoise", "dream"), timed) != comparable(timed.output, timed)
