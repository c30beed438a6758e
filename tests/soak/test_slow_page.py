"""The commands of BENCHMARK.md that take longer than a test should still print what the page says."""

from pathlib import Path

import pytest

from tests.pages import comparable
from tools.refresh_page import PageCommand, run_page_command, steps

ROOT = Path(__file__).parents[2]
SLOW = [step for step in steps((ROOT / "BENCHMARK.md").read_text(encoding="utf-8")) if "slow" in step.marks]

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("step", SLOW, ids=lambda step: step.command)
def test_a_slow_command_prints_what_the_page_says(step: PageCommand) -> None:
    assert comparable(run_page_command(step.command, ROOT), step) == comparable(step.output, step)
