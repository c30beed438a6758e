"""Runs pip install and shows its progress: a line for each package; the log has all of pip's output.

python3 tools/install.py VENV PIP_ARGUMENTS...

pip by itself is silent for minutes or prints hundreds of lines. Needs nothing but Python: it runs before anything is
installed. The log is VENV/install.log; if pip fails, its last lines are shown. The exit code is pip's.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

LAST_LINES = 15

_FETCHED = re.compile(r"\s*(?:Downloading|Using cached) (?:\S*/)?([^/\s]+)\.(?:whl|tar\.gz|zip) \(([^)]+)\)")
_LOCAL = re.compile(r"\s*Processing \S*/([^/\s]+)\.(?:whl|tar\.gz|zip)")
_INSTALLING = re.compile(r"Installing collected packages: (.+)")


def pip_progress(lines: Iterable[str]) -> Iterator[str]:
    """Yield the useful lines of pip's output: packages with their sizes, then how many are installed."""
    shown: set[str] = set()
    for line in lines:
        if found := _FETCHED.match(line) or _LOCAL.match(line):
            package = " ".join(found[1].split("-")[:2])
            if package not in shown:
                shown.add(package)
                yield f"  {package}" + (f" ({found[2]})" if found.re is _FETCHED else "")
        elif found := _INSTALLING.match(line):
            names = found[1].split(", ")
            yield f"  installing {len(names)} packages" if len(names) > 1 else f"  installing {names[0]}"


def install(venv: Path, arguments: list[str]) -> int:
    """Run pip in `venv`; return its exit code."""
    command = [str(venv / "bin" / "python"), "-m", "pip", "install", "--progress-bar", "off", *arguments]
    log = venv / "install.log"
    with (
        log.open("a", encoding="utf-8") as kept,
        subprocess.Popen(  # noqa: S603 the arguments are the Makefile's
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
        ) as pip,
    ):
        for line in pip_progress(_kept(pip.stdout or (), kept)):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        code = pip.wait()
    if code:
        last = log.read_text(encoding="utf-8").splitlines()[-LAST_LINES:]
        sys.stderr.write("\n".join([*last, f"pip failed; all it said is in {log}"]) + "\n")
    return code


def _kept(lines: Iterable[str], log: TextIO) -> Iterator[str]:
    for line in lines:
        log.write(line)
        yield line


if __name__ == "__main__":
    sys.exit(install(Path(sys.argv[1]), sys.argv[2:]))
