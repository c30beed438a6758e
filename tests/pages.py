"""Pages with commands in them: what a command prints, held against what the page says."""

import re
import shlex
from collections.abc import Mapping

import click

from acestep.cli.main import cli as acestep
from calibrate.cli import cli as calibrate
from calibrate.profiling.cli import cli as profiler
from tools.refresh_page import PageCommand

PROGRAMS: Mapping[tuple[str, ...], click.Command] = {
    ("python", "profile_inference.py"): profiler,
    ("python", "-m", "calibrate"): calibrate,
    ("acestep",): acestep,
}


def program(step: PageCommand) -> tuple[click.Command, list[str]] | None:
    """A command of ours and its arguments, to be run without a new process; None for what only a shell can run."""
    if set(step.command) & set("|&;<>$"):
        return None
    words = shlex.split(step.command)
    for name, command in PROGRAMS.items():
        if tuple(words[: len(name)]) == name:
            return command, words[len(name) :]
    return None


def comparable(text: str, step: PageCommand) -> str:
    """What of an output is the same each time: all of it, its shape where it has times in it, or nothing."""
    if "sample" in step.marks:
        return ""
    if "timed" not in step.marks:
        return text
    return "\n".join(re.sub(r"\s+", " ", re.sub(r"[0-9][0-9,.]*", "#", line)).strip() for line in text.splitlines())
