"""Shows a fleet at work: a live table on a terminal, sentences elsewhere, or a line of JSON for each update."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TextIO

import click
import msgspec

from acestep.cli import console
from calibrate.fleet.updates import Cards, Failed, Progressed, TellUpdate, Told, Update, Written

if TYPE_CHECKING:
    from rich.table import Table


@contextmanager
def fleet_view(lines: TextIO | None) -> Iterator[TellUpdate]:
    """Yield a function that shows updates, as long as the context lasts; as JSON on `lines` if that is given."""
    if lines is not None:
        yield partial(print_line, lines)
    elif sys.stderr.isatty():
        with _live() as tell:
            yield tell
    else:
        yield _Sentences().tell


def print_line(lines: TextIO, document: object) -> None:
    """Write a document as one line of JSON, at once."""
    click.echo(msgspec.json.encode(document).decode(), file=lines)


def sentences_of(update: Update) -> Iterator[str]:
    """Yield what a person without a table reads about an update."""
    match update:
        case Told(message=message):
            yield f"{update.card}: {message}"
        case Cards(excluded=excluded, slow=slow):
            yield from (f"{update.card}: {place} is excluded, because {why}." for place, why in excluded.items())
            yield from (f"{update.card}: {place} may be stuck: {why}." for place, why in slow.items())
        case Written(path=path, probes=probes, seconds=seconds):
            yield f"{update.card}: {probes} probes written to {path} after {seconds:.0f} s."
        case Failed(message=message):
            yield f"error: {update.card}: {message}"


class _Sentences:
    """Tells each sentence once: the state of a fleet is told again with everything that is still so."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, update: Update) -> None:
        for sentence in sentences_of(update):
            if sentence not in self._told:
                self._told.add(sentence)
                console.notify(sentence)


@dataclass
class FleetRow:
    """The row of a kind of card, as it is now."""

    cards: str = "starting"
    done: str = ""
    left: str = ""
    last: str = ""
    failed: bool = False
    problems: dict[str, str] = field(default_factory=dict)

    def take(self, update: Update) -> None:
        match update:
            case Progressed(done=done, left=left, left_s=seconds):
                self.done, self.left = f"{done} of about {done + left}", _duration(seconds)
            case Told(message=message):
                self.last = message.partition("] ")[2] or message
            case Cards(at_work=at_work, starting=starting, excluded=excluded, slow=slow):
                self.cards = f"{at_work}" + (f" and {starting} starting" if starting else "")
                self.problems = excluded | slow
            case Written(path=path):
                self.left, self.last = "done", path
            case Failed(message=message):
                self.left, self.last, self.failed = "failed", message, True


def table_of(rows: dict[str, FleetRow]) -> "Table":
    """The rows as a table: one for each kind of card, and one under it for each card with a problem."""
    from rich.table import Table
    from rich.text import Text

    table = Table("card", "workers", "answers", "time left", "last", expand=True)
    for kind, row in rows.items():
        cells = (kind, row.cards, row.done, row.left, row.last)
        table.add_row(*(Text(cell, overflow="ellipsis") for cell in cells))
        for place, why in row.problems.items():
            table.add_row("", Text(place), "", "", Text(why))
    return table


@contextmanager
def _live() -> Iterator[TellUpdate]:
    from rich.console import Console
    from rich.live import Live

    rows: dict[str, FleetRow] = {}
    with Live(table_of(rows), console=Console(stderr=True), refresh_per_second=4) as live:

        def tell(update: Update) -> None:
            rows.setdefault(update.card, FleetRow()).take(update)
            live.update(table_of(rows))

        yield tell
    for kind, row in rows.items():
        if row.failed:
            console.notify(f"error: {kind}: {row.last}")


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
