"""Output and exit codes of a command: one JSON document or text on stdout, warnings and errors on stderr."""

import atexit
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from io import TextIOWrapper
from types import FrameType
from typing import Any, TypeVar

import click
import msgspec

from acestep.errors import AceStepError, CardFaultError, Exit
from acestep.torch_environment import set_defaults

_Document = TypeVar("_Document")

_printed: ContextVar[bool] = ContextVar("printed", default=False)
"""Whether the current command has written its JSON document."""


def print_json(document: Any, *, on_one_line: bool = False) -> None:
    """Write one JSON document to stdout."""
    _printed.set(True)
    try:
        text = msgspec.json.encode(document)
    except UnicodeEncodeError:
        # An argument that is no text of the terminal's encoding: UTF-8 cannot hold it, and JSON needs it.
        text = msgspec.json.encode(_with_text(msgspec.to_builtins(document)))
    click.echo((text if on_one_line else msgspec.json.format(text, indent=2)).decode())


def _with_text(document: Any) -> Any:
    """A document of plain values whose texts UTF-8 can hold; the bytes that it cannot are spelled out."""
    if isinstance(document, str):
        return document.encode("utf-8", errors="backslashreplace").decode()
    if isinstance(document, dict):
        return {_with_text(name): _with_text(value) for name, value in document.items()}
    return [_with_text(value) for value in document] if isinstance(document, list) else document


def answer(document: _Document, show: Callable[[_Document], object], *, as_json: bool) -> None:
    """Write a document to stdout: as JSON, or as `show` does for people."""
    if as_json:
        print_json(document)
    else:
        show(document)


def notify(sentence: str) -> None:
    """Write a sentence to stderr."""
    click.echo(_with_text(sentence), err=True)


def show_progress(stage: str, done: int, total: int) -> None:
    """Update a progress line on stderr; nothing is written if stderr is not a terminal."""
    if sys.stderr.isatty():
        click.echo(f"\r{stage} {done}/{total}\x1b[K", err=True, nl=done == total)


def run_click(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; our own errors become a sentence, never a traceback.

    So do errors in writing to stdout. If the reader of stdout has closed it, click ends the process silently. With
    `--json`, a command that fails before its document is written writes ``{"error": {"exit_code", "message"}}``.
    """
    given = sys.argv[1:] if arguments is None else arguments
    _printed.set(False)
    set_defaults()
    try:
        outcome = command.main(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return _failed(given, error.exit_code, error.format_message())
    except (click.Abort, KeyboardInterrupt) as interruption:
        # A command that keeps what it has so far says so with `click.Abort`.
        sentence = str(interruption) or "interrupted"
        notify(sentence)
        return _failed(given, Exit.INTERRUPTED, sentence)
    except CardFaultError as error:
        notify(f"error: {error}")
        code = _failed(given, error.exit, str(error))
        # Tensors of a card that failed end the process with a signal when Python frees them.
        end_process(code)
        return code
    except AceStepError as error:
        notify(f"error: {error}")
        return _failed(given, error.exit, str(error))
    except MemoryError:
        sentence = "the computer ran out of memory; close other programs, or ask for something shorter"
        notify(f"error: {sentence}")
        return _failed(given, Exit.RUN_FAILED, sentence)
    except (OSError, UnicodeEncodeError) as error:
        if not _was_showing(error):
            if isinstance(error, UnicodeEncodeError) or error.errno is None:
                raise
            logging.getLogger(__name__).info("the system refused", exc_info=True)
            sentence = f"the system refused to go on ({error}); is the disk full, here or in the temporary folder?"
            notify(f"error: {sentence}")
            return _failed(given, Exit.RUN_FAILED, sentence)
        # If stderr is on the same full disk, only the exit code can report the failure.
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
    # A script that asked for a document parses stdout first and checks the exit code afterwards.
    if "--json" in given and not _printed.get():
        with suppress(OSError, UnicodeEncodeError):
            # A script that reads a line for each event reads this one too.
            print_json({"error": {"exit_code": int(code), "message": message}}, on_one_line=True)
    return code


def run_and_exit(command: click.Command) -> None:
    """Run a command with the process's own arguments and end the process.

    The interpreter is not finalised after an interrupt or with PyTorch imported: what has an end was closed, and to
    free the objects of large libraries one by one takes seconds. Nor while threads of a library are still running: a
    thread inside PyTorch would abort the process, whatever the exit code. SIGTERM ends a command as an interrupt does.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    write_utf8()
    code = run_click(command)
    _flush()
    if code == Exit.INTERRUPTED or any(thread.daemon for thread in threading.enumerate()):
        os._exit(code)
    if "torch" in sys.modules:
        # What was registered to be done at the end, such as deleting temporary folders.
        atexit._run_exitfuncs()  # noqa: SLF001 there is no public call for it
        end_process(code)
    sys.exit(code)


def write_utf8(system: str = os.name, environ: Mapping[str, str] = os.environ) -> None:
    """Write UTF-8 into pipes and files on Windows too, whose own code pages lack what tables and captions contain."""
    if system != "nt" or "PYTHONIOENCODING" in environ:
        return
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and not stream.isatty():
            stream.reconfigure(encoding="utf-8")


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _flush() -> None:
    for name in ("stdout", "stderr"):
        try:
            if (stream := getattr(sys, name)) is not None:
                stream.flush()
        except OSError:
            # The rest of the buffer is lost; Python would try to flush it again at exit, and end with its own exit
            # code.
            setattr(sys, name, None)


def _was_showing(error: Exception) -> bool:
    """Return whether an error occurred while text was written to stdout or stderr."""
    return any(frame.f_code is click.echo.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def _not_shown(error: OSError | UnicodeEncodeError) -> str:
    if isinstance(error, OSError):
        return f"the output cannot be written ({error.strerror}); free some space there or send it elsewhere"
    return (
        f"the output has the character {error.object[error.start]!a}, which {sys.stdout.encoding} cannot write; "
        "set PYTHONIOENCODING=utf-8"
    )
