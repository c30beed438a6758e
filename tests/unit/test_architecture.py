"""The rooms of the code import each other as `tools/rooms.py` says, and the page shows that."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from acestep.errors import InvalidInputError
from tools.architecture import imports_in, picture, redrawn, room_of, rooms_imported
from tools.rooms import ROOMS, Room

CHECKOUT = Path(__file__).parents[2]
LONGEST_FILE = 350
PACKAGES = ("acestep", "calibrate", "ci", "tools")
TWICE = frozenset({"main", "cli", "generate"})
"""Names that are defined more than once: the entry points of commands, and the Python API with its lazy front."""


def test_every_room_imports_exactly_what_the_table_says() -> None:
    assert {name: sorted(found) for name, found in rooms_imported(CHECKOUT).items()} == {
        room.name: sorted(room.imports) for room in ROOMS
    }


def test_no_room_imports_a_room_above_it() -> None:
    names = [room.name for room in ROOMS]
    for number, room in enumerate(ROOMS):
        assert set(room.imports) <= set(names[:number]), room.name


def test_no_module_of_acestep_imports_the_harness() -> None:
    pairs = imports_in(CHECKOUT, PACKAGES)
    assert not [pair for pair in pairs if pair[0].startswith("acestep.") and not pair[1].startswith("acestep.")]


def test_the_page_shows_the_rooms_as_they_are() -> None:
    page = (CHECKOUT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert redrawn(page) == page


def test_an_import_that_a_longer_way_implies_is_not_drawn() -> None:
    rooms = (
        Room(name="a", holds="", parts=("a",)),
        Room(name="b", holds="", parts=("b",), imports=("a",)),
        Room(name="c", holds="", parts=("c",), imports=("a", "b")),
    )
    assert "c --> b" in picture(rooms)
    assert "c --> a" not in picture(rooms)


def test_a_module_in_no_room_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="belongs to no room"):
        room_of("acestep.attic.trunk")


def test_a_page_without_a_place_for_the_picture_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="must hold"):
        redrawn("# Architecture\n")


def test_no_public_name_is_defined_twice() -> None:
    places = defaultdict(set)
    for package in PACKAGES:
        for path in (CHECKOUT / package).rglob("*.py"):
            for name in _public_names(ast.parse(path.read_text(encoding="utf-8"))):
                places[name].add(str(path.relative_to(CHECKOUT)))
    twice = {name: sorted(found) for name, found in places.items() if len(found) > 1 and name not in TWICE}
    assert not twice


def test_no_python_file_is_above_350_lines() -> None:
    paths = [path for folder in (*PACKAGES, "tests", "virtual_card") for path in (CHECKOUT / folder).rglob("*.py")]
    lengths = {path: path.read_bytes().count(b"\n") for path in (*paths, *CHECKOUT.glob("*.py"))}
    assert not {str(path.relative_to(CHECKOUT)): lines for path, lines in lengths.items() if lines > LONGEST_FILE}


def _public_names(module: ast.Module) -> list[str]:
    names = []
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return [name for name in names if not name.startswith("_")]
