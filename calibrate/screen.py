"""Output during and after probes: results on stdout, progress on stderr."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import click

from acestep.cli.console import notify
from acestep.cli.show import aligned

ANY_WIDTH = 1_000
"""Terminal width at which every table fits."""


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, folding: Collection[str] = ()
) -> None:
    """Print a table on stdout: on a terminal the `folding` columns wrap between words, elsewhere a row is one line."""
    if not (sys.stdout.isatty() and _print_folded(title, columns, rows, folding)):
        click.echo("\n".join([title, *aligned([columns, *rows])]) + "\n")


def _print_folded(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], folding: Collection[str]) -> bool:
    """Print within the terminal's width and return True, or print nothing and return False if that is too narrow."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for column, *cells in zip(columns, *rows, strict=True):
        longest_word = max(len(word) for cell in (column, *cells) for word in (cell.split() or [""]))
        table.add_column(column, no_wrap=column not in folding, min_width=longest_word)
    for row in rows:
        table.add_row(*row)
    if console.measure(table, options=console.options.update(max_width=ANY_WIDTH)).minimum > console.width:
        return False
    console.print(table)
    return True


@contextmanager
def probe_progress(total: int) -> Iterator[Callable[[str], None]]:
    """A function to call after each of `total` probes: it shows a bar on a terminal, else a line for each probe."""
    if not sys.stderr.isatty():
        done = 0

        def say(line: str) -> None:
            nonlocal done
            done += 1
            notify(f"[{done}/{total}] {line}")

        yield say
        return
    with _bar(total) as advance:
        yield advance


@contextmanager
def _bar(total: int) -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    line = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1))
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn(), line)
    with Progress(*columns, console=Console(stderr=True, markup=False), expand=True) as bar:
        task = bar.add_task("probing", total=total)
        yield lambda line: bar.update(task, advance=1, description=line)
