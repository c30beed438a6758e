"""Code that takes more memory is red in the gate of the very tree that holds it, with the stage and the component.

Two faults on one cell; `make soak` puts all of them into every certified cell.
"""

from pathlib import Path

import pytest

from acestep.knobs import Quantization
from tests.gate_house import House
from tests.gate_trees import CODE_FAULTS, CodeFault, gated_by_fork, named, one_tier_house, one_tier_tree, put_in

QUICK = CODE_FAULTS[2:4]


@pytest.fixture(scope="module")
def house() -> House:
    return one_tier_house(Quantization.INT8)


def test_the_same_code_is_green(house: House, tmp_path: Path) -> None:
    code, document = gated_by_fork(*one_tier_tree(tmp_path, house))
    assert (code, document["verdict"], document["compared"]["cells"]) == (0, "ok", 1), document["findings"]


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in QUICK])
def test_code_that_takes_more_is_red_with_its_stage_and_component(
    fault: CodeFault, house: House, tmp_path: Path
) -> None:
    tree, base = one_tier_tree(tmp_path, house)
    put_in(tree, fault)
    code, document = gated_by_fork(tree, base)
    assert (code, document["verdict"]) == (1, "regressed"), document["findings"]
    assert named(document, fault), document["findings"]
