"""The web UI as a process of its own on loopback, with a home and a temporary folder that nobody else has."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[2]
WITNESS = Path(__file__).with_name("witness.py")
START_S = 90.0
STOP_S = 30.0


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A running UI. Everything it may write is below `folder`; its songs go to `out`."""

    url: str
    process: subprocess.Popen[str]
    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def said(self) -> str:
        """What it has written to stderr so far."""
        return (self.folder / "stderr").read_text(encoding="utf-8")

    def observed(self, event: str) -> list[dict[str, Any]]:
        """What the witness wrote down of one kind."""
        lines = (self.folder / "journal").read_text(encoding="utf-8").splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def wait_for(self, event: str, count: int = 1) -> None:
        """Wait until something has happened so many times."""
        end = time.monotonic() + START_S
        while len(self.observed(event)) < count:
            assert time.monotonic() < end, f"{event} did not happen {count} times"
            time.sleep(0.1)

    def most_songs_at_once(self) -> int:
        """The most generations that ran at the same time."""
        lines = (self.folder / "journal").read_text(encoding="utf-8").splitlines()
        running, most = 0, 0
        for line in map(json.loads, lines):
            running += {"begin": 1, "end": -1}.get(line["event"], 0)
            most = max(most, running)
        return most

    def interrupt(self) -> int:
        """The exit code after Ctrl-C, or that of a server that has ended already."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_S)


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


def acestep(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A run of the `acestep` command that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "acestep", *arguments],
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )


def plan(vram: float, *options: str) -> dict[str, Any]:
    """What `acestep plan --json` says of a card of this size."""
    done = subprocess.run(
        [sys.executable, "-m", "acestep", "plan", "--json", *options],
        env={**os.environ, "MAX_CUDA_VRAM": f"{vram:g}"},
        capture_output=True,
        text=True,
        check=True,
    )
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


@contextmanager
def serving(folder: Path, *options: str, vram: float = 8, table: Path | None = None) -> Iterator[Server]:
    """A UI with the tiny model for a card of this size, ended with Ctrl-C, which it has to obey."""
    env = environment(folder, MAX_CUDA_VRAM=f"{vram:g}")
    command = [sys.executable, "-P", str(WITNESS), str(folder / "journal"), "" if table is None else str(table)]
    arguments = ["ui", "--port", "0", "--model", "tiny", "--out", str(folder / "out"), *options]
    with (
        (folder / "stderr").open("w", encoding="utf-8") as stderr,
        subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            server = Server(url=_announced(process, folder), process=process, folder=folder)
            yield server
            code = server.interrupt()
            assert code == 130, f"ended with {code}: {server.said[-2000:]}"
            assert _left_behind(process.pid) == []
        finally:
            process.kill()


def _announced(process: subprocess.Popen[str], folder: Path) -> str:
    """The address that a server prints once it serves."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    text, end = "", time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        text += os.read(process.stdout.fileno(), 4096).decode() if _readable(process) else ""
        if "\n" in text:
            url = text.splitlines()[0].strip()
            assert url.startswith("http://127.0.0.1:"), url
            return url
    raise AssertionError(f"the server did not announce itself: {(folder / 'stderr').read_text(encoding='utf-8')}")


def _readable(process: subprocess.Popen[str]) -> bool:
    return bool(select.select([process.stdout], [], [], 0.5)[0])


def _left_behind(session: int) -> list[str]:
    """The command lines of processes that are still there of those a server started."""
    left = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == session:
                left.append((folder / "cmdline").read_text(encoding="utf-8").replace("\0", " "))
        except (OSError, ValueError):
            continue
    return left
