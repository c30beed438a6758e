"""Command lines in pages and workflows, compared with the existing make targets, modules and flags."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from calibrate.cli import cli as calibrate
from ci.anchor import anchor
from ci.gate import gate
from tools.latest_report import latest_report as latest_report
from tools.refresh_page import refresh
from tools.release_check import check as release_check

ROOT = Path(__file__).parent.parent
MODULES: dict[str, click.Command] = {
    "calibrate": calibrate,
    "ci.anchor": anchor,
    "ci.gate": gate,
    "tools.latest_report": latest_report,
    "tools.refresh_page": refresh,
    "tools.release_check": release_check,
}
LIBRARIES = {"hatchling", "pytest"}
"""Modules of other packages that are run by name."""
PLAIN_SCRIPTS = {"tools.gpu_bundle": ROOT / "tools" / "gpu_bundle.py"}
"""Modules that do without click, where it may be missing."""

SEPARATORS = frozenset("&&|;<>()\n")


def commands(text: str) -> Iterator[list[str]]:
    """The words of every simple command of a shell text, without redirections."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= SEPARATORS:
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def problems(words: list[str]) -> list[str]:
    """What a command names that is not there; nothing for commands that are not ours."""
    if words[0] == "make":
        return [f"make has no target {name}" for name in words[1:] if name not in make_targets()]
    if "-m" in words and words[0] in (".venv/bin/python", ".venv-latest/bin/python", "python", "xargs"):
        module, *arguments = words[words.index("-m") + 1 :]
        if module in LIBRARIES:
            return []
        if module in PLAIN_SCRIPTS:
            known = set(re.findall(r'"(--?[a-z][a-z-]*)"', PLAIN_SCRIPTS[module].read_text(encoding="utf-8")))
            return [f"{module} has no {word}" for word in arguments if word.startswith("-") and word not in known]
        if module not in MODULES:
            return [f"no module {module} is for people"]
        return _flag_problems(MODULES[module], arguments)
    return []


def make_targets() -> set[str]:
    files = (ROOT / "Makefile", ROOT / "virtual_card" / "targets.mk")
    return {
        name
        for file in files
        for name in re.findall(r"^([a-z][a-z-]*):", file.read_text(encoding="utf-8"), re.MULTILINE)
    }


def _flag_problems(command: click.Command, arguments: list[str]) -> list[str]:
    if isinstance(command, click.Group):
        name, *arguments = arguments or [""]
        if name not in command.commands:
            return [f"{command.name} has no command {name!r}"]
        command = command.commands[name]
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    flags = [word.split("=")[0] for word in arguments if word.startswith("-")]
    required = [p.opts[0] for p in command.params if p.required and p.param_type_name == "option"]
    return [f"{command.name} has no {flag}" for flag in flags if flag not in known] + [
        f"{command.name} lacks {flag}" for flag in required if flag not in flags
    ]
