"""What a person sees while probes run and when they are done; stdout for results, stderr for progress."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from acestep.console import notify

PLAIN_WIDTH = 240
"""Columns of output that goes to a file or a pipe, where nothing may be folded or cut."""


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: fitted to a terminal, one unfolded line per row anywhere else."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD if console.is_terminal else None)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Gives a function to call after each of `total` probes: a live bar on a terminal, else a line per probe."""
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

    columns: tuple[Any, ...] = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True, markup=False)) as bar:
        task = bar.add_task("probing", total=total)
        yield lambda line: bar.update(task, advance=1, description=line)
