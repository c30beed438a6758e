"""The web UI as a separate process on loopback, with its own home and temporary folder."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from functools import cache
from io import StringIO
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from acestep.cli.console import run_click
from acestep.cli.main import cli
from tests.browser import witness
from tests.processes import has_ended

START_S = 120.0
STOP_S = 30.0


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A running UI. Everything it may write is below `folder`; its songs go to `out`.

    `wait` gives the exit code once the process has ended.
    """

    url: str
    folder: Path
    pid: int
    wait: Callable[[], int]

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def songs(self) -> list[Path]:
        """The songs in the output folder."""
        return [path for path in self.out.rglob("*") if path.suffix in (".flac", ".wav", ".mp3")]

    @property
    def said(self) -> str:
        """What it has written to stderr so far."""
        return (self.folder / "stderr").read_text(encoding="utf-8")

    def journal(self) -> list[dict[str, Any]]:
        """What the witness wrote down so far."""
        whole = (self.folder / "journal").read_text(encoding="utf-8").rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def observed(self, event: str) -> list[dict[str, Any]]:
        """What the witness wrote down of one kind."""
        return [line for line in self.journal() if line["event"] == event]

    def wait_for(self, event: str, count: int = 1) -> None:
        """Wait until something has happened so many times."""
        end = time.monotonic() + START_S
        while len(self.observed(event)) < count:
            assert time.monotonic() < end, f"{event} did not happen {count} times"
            time.sleep(0.1)

    def most_songs_at_once(self) -> int:
        """The most generations that ran at the same time."""
        running, most = 0, 0
        for line in self.journal():
            running += {"begin": 1, "end": -1}.get(line["event"], 0)
            most = max(most, running)
        return most

    def interrupt(self) -> int:
        """The exit code after Ctrl-C."""
        os.kill(self.pid, signal.SIGINT)
        return self.wait()


def environment(folder: Path, **more: str) -> dict[str, str]:
    """A new user's environment; nothing of the one who runs the tests reaches the server."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **more,
    }


def acestep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of the `acestep` command that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "acestep", *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )


@cache
def plan(vram: float, *options: str) -> dict[str, Any]:
    """What `acestep plan --json` says of a card of this size."""
    with redirect_stdout(StringIO()) as out, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAX_CUDA_VRAM", f"{vram:g}")
        assert run_click(cli, ("plan", "--json", *options)) == 0
    document = json.loads(out.getvalue())
    assert isinstance(document, dict)
    return document


@contextmanager
def serving(
    folder: Path, *options: str, vram: float = 8, table: Path | None = None, cold: bool = False
) -> Iterator[Server]:
    """A UI with the tiny model for a card of this size, ended with Ctrl-C, which it has to obey.

    A `cold` one is started as people start it; the others save themselves the seconds that the imports take.
    """
    arguments = ["ui", "--port", "0", "--model", "tiny", "--out", str(folder / "out"), *options]
    command = [str(folder / "journal"), "" if table is None else str(table), *arguments]
    pid, wait = (_cold if cold else _warm)(folder, command, environment(folder, MAX_CUDA_VRAM=f"{vram:g}"))
    try:
        server = Server(url=_announced(folder, pid), folder=folder, pid=pid, wait=wait)
        yield server
        if _processes(pid):
            code = server.interrupt()
            assert code == 130, f"ended with {code}: {server.said[-2000:]}"
        assert _processes(pid) == []
    finally:
        if _processes(pid):
            os.killpg(pid, signal.SIGKILL)
            wait()


Process = tuple[int, Callable[[], int]]
"""A process that leads a session: its ID, and a call that waits for its exit code."""


def _cold(folder: Path, command: list[str], env: dict[str, str]) -> Process:
    with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", witness.__file__, *command],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    return process.pid, lambda: process.wait(STOP_S)


def _warm(folder: Path, command: list[str], env: dict[str, str]) -> Process:
    process = nursery().Process(target=_become, args=(folder, command, env))
    process.start()

    def wait() -> int:
        process.join(STOP_S)
        assert process.exitcode is not None, "the server did not end"
        return process.exitcode

    assert process.pid is not None
    return process.pid, wait


@cache
def nursery() -> Any:
    """Forks processes in which all heavy libraries are imported already; returns at once, while it imports them."""
    context = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        home = Path(tempfile.mkdtemp(prefix="nursery-"))
        for name, value in environment(home, GRADIO_ANALYTICS_ENABLED="False").items():
            patch.setenv(name, value)
        context.set_forkserver_preload(["tests.browser.witness", "acestep.engine.service", "gradio"])
        forkserver.ensure_running()
    return context


def _become(folder: Path, command: list[str], env: dict[str, str]) -> None:
    """Run as the server, in a newly forked process."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
    witness.run(*command)


def _announced(folder: Path, pid: int) -> str:
    """The address that a server prints once it serves."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        said = (folder / "stdout").read_text() if (folder / "stdout").exists() else ""
        if said.endswith("\n"):
            assert said.startswith("http://127.0.0.1:")
            assert said.count("\n") == 1
            return said.strip()
        if said == "" and has_ended(pid):
            break
        time.sleep(0.1)
    raise AssertionError(f"the server did not announce itself: {(folder / 'stderr').read_text(encoding='utf-8')}")


def _processes(session: int) -> list[str]:
    """The command lines of the processes of a session that still run."""
    running = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == session and not has_ended(process.pid):
                running.append(" ".join(process.cmdline()))
    return running
