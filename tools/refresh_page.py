"""Runs the commands of a page again and writes their output below them: `python -m tools.refresh_page BENCHMARK.md`.

Every line of a ``console`` block that begins with ``$`` is a command, run in the page's folder; below it is its stdout.
Words after ``console`` say what a test may expect of the output: ``timed`` prints times, ``sample`` is never the same
twice, ``slow`` takes longer than a test should. They do not change how it is run.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec

from acestep.cli import console
from acestep.errors import RunFailedError
from acestep.output_file import output_file

SURROUNDINGS = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
"""The environment that makes a page the same everywhere: no card, and only one thread for tiny models."""

_BLOCK = re.compile(r"^```console(?P<marks>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


class PageCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A command of a page, its output on the page, and the marks of its block."""

    command: str
    output: str
    marks: frozenset[str]


def steps(page: str) -> Iterator[PageCommand]:
    """Every command of a page, in order."""
    for block in _BLOCK.finditer(page):
        yield from _steps(block)


def refreshed(page: str, run: Callable[[str], str]) -> str:
    """Return the page with the output of `run` below each command."""

    def block(found: re.Match[str]) -> str:
        body = "".join(f"$ {step.command}\n{run(step.command)}" for step in _steps(found))
        return f"```console{found['marks']}\n{body}```"

    return _BLOCK.sub(block, page)


def run_page_command(command: str, folder: Path) -> str:
    """Return a command's output, without blanks at the ends of lines.

    Raises `RunFailedError` unless its exit code is 0.
    """
    here = Path(sys.executable).parent
    environment = os.environ | SURROUNDINGS | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
    console.notify(f"$ {command}")
    done = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)  # noqa: S603, S607 a page of this repository
    if done.returncode:
        raise RunFailedError(f"{command!r} ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return trimmed(done.stdout)


def trimmed(text: str) -> str:
    """Return text as stored in a page: no blanks at the ends of lines, no empty lines at the end."""
    return "".join(f"{line.rstrip()}\n" for line in text.rstrip().splitlines())


def _steps(block: re.Match[str]) -> Iterator[PageCommand]:
    marks = frozenset(block["marks"].split())
    for part in re.split(r"^\$ ", block["body"], flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield PageCommand(command=command, output=output, marks=marks)


@click.command()
@click.argument("page", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--only", default="", metavar="PATTERN", help="Run only the commands in which it is found.")
def refresh(page: Path, only: str) -> None:
    """Run the commands of PAGE again and rewrite their output; if a command fails, the page stays unchanged."""
    text = page.read_text(encoding="utf-8")
    known = {step.command: step.output for step in steps(text)}
    with output_file(page) as write:
        write(
            refreshed(
                text,
                lambda command: (
                    run_page_command(command, page.parent) if not only or re.search(only, command) else known[command]
                ),
            )
        )


if __name__ == "__main__":
    console.run_and_exit(refresh)
