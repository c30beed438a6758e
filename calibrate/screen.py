"""What a person sees while probes run and when they are done; stdout for results, stderr for progress."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from acestep.console import notify


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: fitted to a terminal, one unfolded line per row anywhere else."""
    if not sys.stdout.isatty():
        click.echo("\n".join([title, *_aligned([columns, *rows])]) + "\n")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


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
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True, markup=False)) as bar:
        task = bar.add_task("probing", total=total)
        yield lambda line: bar.update(task, advance=1, description=line)
