"""Runs a bundle's plan on a machine with a card and without internet, in parts of limited time.

python3 run.py [--minutes 9] [--out out]

Every unfinished step is started, or continues from its journal. When the time is up the running step is interrupted,
its journal stays valid, and the exit code is 130: give the same command again. All results are in one file,
`out.tar.gz` next to the folder `out`, updated after every step and at the end: if the next part runs on another
machine, it only needs that file next to `run.py`. Exit code 0 means that all steps are done; otherwise it is the code
of the last failed step, and a failed step that all others depend on ends the run. Needs nothing but Python and the
bundle.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

INTERRUPTED = 130

GRACE_S = 20.0
"""Seconds that an interrupted step may take to end: a probe's child must be killed, and the card must become as before.
"""

HERE = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Install what is missing, then run one step after another until the time is up; pack the results into one file."""
    options = _options(arguments)
    started = time.monotonic()
    out = options.out.resolve()
    unpack(out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        return _steps(out, _installed(HERE), started + 60 * options.minutes - GRACE_S)
    finally:
        pack(out)


def _steps(out: Path, environ: Mapping[str, str], until: float) -> int:
    """Run the unfinished steps while there is time; return the exit code."""
    failed = 0
    for step in json.loads((HERE / "plan.json").read_text(encoding="utf-8")):
        if done_mark(out, step).exists():
            continue
        left = until - time.monotonic()
        if left < step["least_s"]:
            _say(f"{step['name']} needs {step['least_s']} s and {max(0, left):.0f} s are left: give the command again.")
            return INTERRUPTED
        before = _known(out, step)
        code = carry_out(step, out, environ, left)
        if code == INTERRUPTED:
            more = "" if _known(out, step) > before else ", with more --minutes: nothing was answered in these"
            _say(f"{step['name']} is not done: give the command again{more}.")
            return INTERRUPTED
        _say(f"{step['name']} ended with code {code}.")
        if code in step["ends"]:
            done_mark(out, step).write_text(f"{code}\n", encoding="utf-8")
        else:
            failed = code
            if step["required"]:
                _say(f"Nothing else can be relied on before that is mended; {step['name']}.log says what it was.")
                return failed
        pack(out)
    return failed


def archive_of(out: Path) -> Path:
    """The one file with all results, next to their folder."""
    return out.with_name(f"{out.name}.tar.gz")


def pack(out: Path) -> None:
    """Write all results to the archive, which is replaced atomically."""
    unfinished = archive_of(out).with_suffix(".unfinished")
    with tarfile.open(unfinished, "w:gz", compresslevel=6) as archive:
        archive.add(out, out.name)
    unfinished.replace(archive_of(out))


def unpack(out: Path) -> None:
    """Unpack the results of earlier parts if only the archive is here; their folder appears only when complete."""
    archive = archive_of(out)
    if out.exists() or not archive.exists():
        return
    unpacked = out.with_name(f"{out.name}.unfinished")
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(unpacked, filter="data")
        (unpacked / out.name).rename(out)
    except (tarfile.TarError, EOFError, OSError) as error:
        sys.exit(f"{archive} cannot be unpacked ({error}): bring it again, or move it away to begin anew")
    unpacked.rmdir()


def carry_out(step: Mapping[str, Any], out: Path, environ: Mapping[str, str], seconds: float) -> int:
    """Run a step and return its exit code; at the time limit it is interrupted, and killed if that does not end it."""
    command = [part.format(python=sys.executable, out=out) for part in step["command"]]
    _share_journal(step, out)
    if step["journal"] and (out / step["journal"]).exists():
        command.append("--resume")
    _say(f"{step['name']}: {' '.join(command)}")
    with (out / f"{step['name']}.log").open("ab") as log:
        child = subprocess.Popen(  # noqa: S603 the plan is ours
            command, cwd=HERE / "source", env=environ, stdout=log, stderr=log, start_new_session=True
        )
        try:
            return child.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            # Only the step itself: it ends its own processes, which a signal to the group would kill first.
            child.send_signal(signal.SIGINT)
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return INTERRUPTED


def done_mark(out: Path, step: Mapping[str, Any]) -> Path:
    """The file that marks a step as done, with its exit code."""
    return out / f"{step['name']}.done"


def _share_journal(step: Mapping[str, Any], out: Path) -> None:
    """Share this step's answers with a later one: both journals are the same file under two names.

    A step removes its journal when it ends; the other name remains. If a file cannot have two names, the later step
    asks again.
    """
    if not step["feeds"]:
        return
    own, later = out / step["journal"], out / step["feeds"]
    with suppress(OSError):
        if not own.exists() and later.exists():
            own.hardlink_to(later)
        elif not later.exists() or not own.samefile(later):
            own.touch()
            spare = later.with_suffix(".unfinished")
            spare.hardlink_to(own)
            spare.replace(later)


def _known(out: Path, step: Mapping[str, Any]) -> int:
    """The bytes of a step's journal, 0 if it keeps none."""
    journal = out / step["journal"]
    return journal.stat().st_size if step["journal"] and journal.exists() else 0


def _installed(bundle: Path) -> dict[str, str]:
    """Return the environment of the steps, with the wheels that this Python lacks installed once into a folder here."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = bundle / f"requirements-{version}.txt"
    if not wanted.exists():
        there = ", ".join(sorted(path.stem.removeprefix("requirements-") for path in bundle.glob("requirements-*.txt")))
        sys.exit(f"this bundle has wheels for Python {there}, this is {version}: build it with --python {version}")
    site, mark = bundle / "site", bundle / "site.done"
    if wanted.read_text(encoding="utf-8").strip() and not mark.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", str(bundle / "wheels")]
        subprocess.run(  # noqa: S603 pip, and the wheels beside it
            [*pip, "--no-deps", "--upgrade", "--target", str(site), "--requirement", str(wanted)], check=True
        )
    mark.touch()
    # The sources as well: a step may run scripts by their path, which import from nowhere else.
    path = os.pathsep.join([str(bundle / "source"), str(site), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="how long this piece may take (default: 9)")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="what is brought back (default: out)")
    return parser.parse_args(arguments)


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    # Ending this process ends the step too, and its journal stays valid.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
