"""What the capability of a card decides, and what Windows lacks: attention kernels and the workspace of products."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from acestep.limits.capabilities import matrix_workspace, torch_release
from tests.virtual.processes import bare_environ, running
from virtual_card.card import System, VirtualCard

CHILD = Path(__file__).with_name("what_a_card_takes.py")
RELEASE = torch_release(version("torch")) or (0, 0)
FLASH, EFFICIENT, MATH = "flash_fwd", "fmha", "math"


def what_a_card_takes(capability: tuple[int, int], system: System) -> dict[str, object]:
    with running(cards=(VirtualCard(capability=capability),), system=system) as machine:
        environ = machine.environ({**bare_environ(), "VIRTUAL_CARD_LAUNCHES": str(machine.folder / "launches.txt")})
        done = subprocess.run(
            [sys.executable, str(CHILD)], env=environ, capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode == 0, done.stderr
        answers: dict[str, object] = json.loads(done.stdout)
        return answers


@pytest.mark.parametrize("capability", [(8, 6), (9, 0), (12, 0)])
def test_cards_from_ampere_on_have_flash_attention_and_a_workspace_of_their_generation(
    capability: tuple[int, int],
) -> None:
    answers = what_a_card_takes(capability, System.LINUX)
    assert answers["workspace"] == matrix_workspace(capability, RELEASE)
    assert answers["plain"] == answers["grouped"] == FLASH
    assert answers["masked"] == answers["single"] == EFFICIENT


def test_turing_has_no_flash_attention() -> None:
    answers = what_a_card_takes((7, 5), System.LINUX)
    assert answers["workspace"] == 8_519_680
    assert answers["plain"] == answers["masked"] == answers["single"] == EFFICIENT


def test_windows_has_no_flash_attention_and_groups_nothing() -> None:
    answers = what_a_card_takes((8, 6), System.WINDOWS)
    assert answers["plain"] == answers["masked"] == EFFICIENT
    # From 2.14 on the memory-efficient kernel takes grouped queries too.
    assert answers["grouped"] == answers["grouped and masked"] == (EFFICIENT if RELEASE >= (2, 14) else MATH)
