"""How a command ends: one JSON document or text on stdout, sentences on stderr, and the exit code of its error."""

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click
import msgspec

from acestep.errors import AceStepError, Exit


def print_json(document: Any) -> None:
    """Write one JSON document to stdout."""
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def notify(sentence: str) -> None:
    """Tell the person at the terminal something without touching stdout."""
    click.echo(sentence, err=True)


def show_progress(stage: str, done: int, total: int) -> None:
    """Rewrite one line of stderr with how far a stage is; silent where nobody watches."""
    if sys.stderr.isatty():
        click.echo(f"\r{stage} {done}/{total}\x1b[K", err=True, nl=done == total)


def run(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; errors of ours become a sentence, never a traceback."""
    try:
        outcome = command.main(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        notify("interrupted")
        return Exit.INTERRUPTED
    except AceStepError as error:
        notify(f"error: {error}")
        return error.exit
    return outcome if isinstance(outcome, int) else Exit.OK


def run_and_exit(command: click.Command) -> None:
    """Run a command on the process's own arguments and end the process.

    Where threads of a library still run, the interpreter is not taken apart under them: one that is inside PyTorch then
    would abort the process, whatever the exit code.
    """
    code = run(command)
    if any(thread.daemon for thread in threading.enumerate()):
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
