"""Code that takes more memory is red in the gate of the very tree that holds it, with the stage and the component.

Three faults on one cell; `make soak` puts all of them into every certified cell.
"""

import shutil
from pathlib import Path

import pytest

from acestep.knobs import Quantization
from tests.gate_house import House
from tests.gate_trees import CODE_FAULTS, CodeFault, copy_of_tree, gated, named, one_cell_house, put_in

QUICK = CODE_FAULTS[1:4]


@pytest.fixture(scope="module")
def house() -> House:
    return one_cell_house(Quantization.INT8)


def tree_of(house: House, place: Path) -> tuple[Path, Path]:
    """A copy of this tree with the house as its tiers, and the table that it is judged against."""
    tree = copy_of_tree(place / "tree")
    published = (tree / "tiers" / "published_tiers.json").read_bytes()
    shutil.rmtree(tree / "tiers")
    house.written(tree)
    (tree / "tiers" / "published_tiers.json").write_bytes(published)
    return tree, house.written(place / "base")


def test_the_same_code_is_green(house: House, tmp_path: Path) -> None:
    code, document = gated(*tree_of(house, tmp_path))
    assert (code, document["verdict"], document["compared"]["cells"]) == (0, "ok", 1), document["findings"]


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in QUICK])
def test_code_that_takes_more_is_red_with_its_stage_and_component(
    fault: CodeFault, house: House, tmp_path: Path
) -> None:
    tree, base = tree_of(house, tmp_path)
    put_in(tree, fault)
    code, document = gated(tree, base)
    assert (code, document["verdict"]) == (1, "regressed"), document["findings"]
    assert named(document, fault), document["findings"]
