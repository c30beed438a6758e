"""How a command ends: one JSON document or text on stdout, sentences on stderr, and the exit code of its error."""

import os
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import click
import msgspec

from acestep.errors import AceStepError, CardFaultError, Exit
from acestep.logs import quiet_torch

_printed: ContextVar[bool] = ContextVar("printed", default=False)
"""Whether the command that runs has written its JSON document."""


def print_json(document: Any) -> None:
    """Write one JSON document to stdout."""
    _printed.set(True)
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def notify(sentence: str) -> None:
    """Tell the person at the terminal something without touching stdout."""
    click.echo(sentence, err=True)


def show_progress(stage: str, done: int, total: int) -> None:
    """Rewrite one line of stderr with how far a stage is; silent where nobody watches."""
    if sys.stderr.isatty():
        click.echo(f"\r{stage} {done}/{total}\x1b[K", err=True, nl=done == total)


def run_click(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; errors of ours become a sentence, never a traceback.

    So does text that stdout does not take. Where what reads it has closed it, click ends the process without a word.
    With `--json`, one that fails before it has written its document writes ``{"error": {"exit_code", "message"}}``.
    """
    given = sys.argv[1:] if arguments is None else arguments
    _printed.set(False)
    quiet_torch()
    try:
        outcome = command.main(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return _failed(given, error.exit_code, error.format_message())
    except (click.Abort, KeyboardInterrupt):
        notify("interrupted")
        return _failed(given, Exit.INTERRUPTED, "interrupted")
    except CardFaultError as error:
        notify(f"error: {error}")
        code = _failed(given, error.exit, str(error))
        # Tensors of a card that failed end the process with a signal when Python frees them.
        end_process(code)
        return code
    except AceStepError as error:
        notify(f"error: {error}")
        return _failed(given, error.exit, str(error))
    except (OSError, UnicodeEncodeError) as error:
        if not _was_showing(error):
            raise
        # Where stderr goes to the same full disk, only the exit code is left to say it.
        with suppress(OSError):
            notify(f"error: {_not_shown(error)}")
        return Exit.RUN_FAILED
    return outcome if isinstance(outcome, int) else Exit.OK


def end_process(code: int) -> None:
    """End this process at once, without freeing anything; what was printed is printed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _failed(given: Sequence[str], code: int, message: str) -> int:
    # A script that asked for a document parses stdout first and looks at the exit code afterwards.
    if "--json" in given and not _printed.get():
        with suppress(OSError, UnicodeEncodeError):
            print_json({"error": {"exit_code": int(code), "message": message}})
    return code


def run_and_exit(command: click.Command) -> None:
    """Run a command on the process's own arguments and end the process.

    Where threads of a library still run, the interpreter is not taken apart under them: one that is inside PyTorch then
    would abort the process, whatever the exit code.
    """
    code = run_click(command)
    _flush()
    if any(thread.daemon for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


def _flush() -> None:
    for name in ("stdout", "stderr"):
        try:
            if (stream := getattr(sys, name)) is not None:
                stream.flush()
        except OSError:
            # What is left in it is lost; Python would try again as it ends, and end with a code of its own.
            setattr(sys, name, None)


def _was_showing(error: Exception) -> bool:
    """Whether an error came up while text was written to stdout or stderr."""
    return any(frame.f_code is click.echo.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def _not_shown(error: OSError | UnicodeEncodeError) -> str:
    if isinstance(error, OSError):
        return f"the output cannot be written ({error.strerror}); free some space there or send it elsewhere"
    return (
        f"the output has the character {error.object[error.start]!a}, which {sys.stdout.encoding} cannot write; "
        "set PYTHONIOENCODING=utf-8"
    )
