"""Every code fault in a copy of the tree, judged at every certified cell of turbo; as it is it is green in time."""

import resource
from functools import cache
from pathlib import Path

import click
import pytest

from acestep.knobs import Quantization
from tests.code_faults import CODE_FAULTS
from tests.code_faults.doors import DOOR_FAULTS
from tests.code_faults.fault import CodeFault
from tests.gate_trees import gated, named, one_tier_house, one_tier_tree, put_in, turbo_tree

pytestmark = pytest.mark.soak
SEED = ("--seed", "5")
"""The same runs and samples every time: whether a test passes does not depend on what is drawn."""

MOST_SECONDS = 300
"""Of processor time for a tree that did not change.

About 180 s for the cells, the runs that no cell is and the plans, 60 s for the scenarios of both sides, and a quarter
more for a busy machine.
"""


house = cache(one_tier_house)
"""What was measured once, for every fault that is looked for in it."""


def test_the_tree_as_it_is_is_green_in_time(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code, document = gated(turbo_tree(tmp_path), *SEED)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    click.echo(f"\n{document['compared']} in {seconds:.0f} s of processor time")
    assert (code, document["verdict"]) == (0, "ok"), document["findings"]
    assert seconds <= MOST_SECONDS


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in CODE_FAULTS if not fault.scenario])
def test_every_fault_is_red_with_its_stage_and_component(fault: CodeFault, tmp_path: Path) -> None:
    # No tier has to be quantized today, so that fault gets a cell of its own.
    if fault in DOOR_FAULTS:
        tree = one_tier_tree(tmp_path, house(None, seconds=60), doors=True)
    elif fault.needs_int8 or fault.song_s:
        int8 = Quantization.INT8 if fault.needs_int8 else None
        tree = one_tier_tree(tmp_path, house(int8, seconds=fault.song_s or 600, card_gib=fault.card_gib, lm=fault.lm))
    else:
        tree = turbo_tree(tmp_path)
    put_in(tree, fault)
    code, document = gated(tree, *SEED)
    assert (code, document["verdict"]) == (fault.verdict.exit, fault.verdict), document["findings"]
    assert named(document, fault), document["findings"]
    click.echo(f"\n{fault.name}: {len(named(document, fault))} of {len(document['findings'])} findings name its cause")
