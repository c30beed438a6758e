"""The imports between the rooms of the code, and the picture of them in `docs/ARCHITECTURE.md`.

`python -m tools.architecture docs/ARCHITECTURE.md` writes the picture and the table of `tools/rooms.py` into the page.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from acestep.cli import console
from acestep.errors import InvalidInputError
from acestep.output_file import output_file
from tools.rooms import ROOMS, Room

BEGIN, END = "<!-- rooms -->", "<!-- /rooms -->"
"""The lines of a page between which the picture and the table are written."""

_INIT = "__init__"


def room_of(module: str, rooms: Sequence[Room] = ROOMS) -> str:
    """Return the name of a module's room; raise `InvalidInputError` for a module without a room."""
    part = module
    while part:
        for room in rooms:
            if part in room.parts:
                return room.name
        part = part.rpartition(".")[0]
    raise InvalidInputError(module, "belongs to no room; add it to ROOMS in tools/rooms.py")


def imports_in(checkout: Path, packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(importing module, imported module) for every import between modules of these packages."""
    paths = [path for package in packages for path in sorted((checkout / package).rglob("*.py"))]
    files = {_dotted(path.relative_to(checkout)): path for path in paths}
    for module, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _imported(node):
                if name.split(".")[0] in packages:
                    parent = name.rpartition(".")[0]
                    yield module, next(found for found in (name, parent, f"{parent}.{_INIT}") if found in files)


def rooms_imported(checkout: Path, rooms: Sequence[Room] = ROOMS) -> dict[str, set[str]]:
    """Return the rooms that each room imports in the code."""
    packages = sorted({part.split(".")[0] for room in rooms for part in room.parts})
    found: dict[str, set[str]] = {room.name: set() for room in rooms}
    for module, imported in imports_in(checkout, packages):
        importer, owner = room_of(module, rooms), room_of(imported, rooms)
        if importer != owner:
            found[importer].add(owner)
    return found


def picture(rooms: Sequence[Room] = ROOMS) -> str:
    """Return the rooms as a Mermaid chart. An import is left out if a longer path of imports leads to the same room."""
    reached = _reached({room.name: room.imports for room in rooms})
    lines = ["```mermaid", "flowchart BT"]
    lines += [f'  {room.name}["{room.name}"]' for room in rooms]
    for room in rooms:
        for name in room.imports:
            if not any(name in reached[other] for other in room.imports if other != name):
                lines.append(f"  {room.name} --> {name}")
    return "\n".join((*lines, "```"))


def table(rooms: Sequence[Room] = ROOMS) -> str:
    """The rooms as a Markdown table, the top one first."""
    rows = [f"| `{room.name}` | {room.holds} | {', '.join(room.imports) or 'nothing'} |" for room in reversed(rooms)]
    return "\n".join(("| room | what it holds | may import |", "| --- | --- | --- |", *rows))


def redrawn(page: str) -> str:
    """Return the page with picture and table; raise `InvalidInputError` if it lacks the markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InvalidInputError("the page", f"must hold {BEGIN} and {END}, in this order")
    return f"{before}{BEGIN}\n{picture()}\n\n{table()}\n{END}{after}"


def _reached(imports: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """Return the rooms that are reachable from each room; `imports` names rooms after those that they import."""
    reached: dict[str, set[str]] = {}
    for name, direct in imports.items():
        reached[name] = set(direct).union(*(reached[other] for other in direct))
    return reached


def _dotted(path: Path) -> str:
    """Return the name of a module; a package's own file keeps `__init__`, because a package may contain many rooms."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == _INIT and len(parts) > 2 else parts)


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


@click.command()
@click.argument("page", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def draw(page: Path) -> None:
    """Write the picture and the table of the rooms into PAGE."""
    with output_file(page) as write:
        write(redrawn(page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    console.run_and_exit(draw)
