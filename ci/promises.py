"""What a tiers folder promises: read from a checkout for the head, from git or from beside a file for the base."""

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

import msgspec

from acestep.errors import InvalidInputError, NotMeasuredError
from acestep.tiers import TierTable, load_tiers
from calibrate.policy import Policy, load_policy
from calibrate.record import Measurement, load_measurement
from calibrate.waivers import Waiver, load_waivers
from ci.tolerance import Tolerance, load_tolerance

TABLE = "generated_tiers.json"
POLICY = "policy.json"
WAIVERS = "waivers.json"
RECORDS = "measurements"


class Promises(msgspec.Struct, frozen=True, kw_only=True):
    """A table, and what it is made and judged by; `policy` is None for a table that stands alone in its folder.

    The records of a head are those that can be read: the others are findings, not an end.
    """

    table: TierTable
    policy: Policy | None
    records: tuple[Measurement, ...]
    waivers: tuple[Waiver, ...]
    tolerance: Tolerance


def head_promises(table: Path, folder: Path) -> Promises:
    """What a change says, its table apart from the rest; `InvalidInputError` for what cannot be read."""
    if not (folder / POLICY).is_file():
        raise InvalidInputError(folder / POLICY, "no such file; a table needs the policy it was made under")
    return _promises(table, folder, tuple(_readable(folder)))


def base_promises(checkout: Path, base: str) -> Promises:
    """What was promised at a git reference, or in a file and its folder; `NotMeasuredError` where nothing was."""
    try:
        if Path(base).is_file():
            return _stored(Path(base))
        with tempfile.TemporaryDirectory() as place:
            _extract(checkout, base, Path(place))
            return _stored(Path(place) / "tiers" / TABLE)
    except InvalidInputError as error:
        raise NotMeasuredError(f"the base {base} cannot be read: {Path(error.source).name}: {error.problem}") from None


def git(checkout: Path, *arguments: str) -> bytes:
    """What git prints; `NotMeasuredError` with its own words where it fails or is not there."""
    command = ["git", "-C", str(checkout), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 fixed program, no shell
    except FileNotFoundError:
        raise NotMeasuredError("git is not installed, so no reference can be read; name a file with --base") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[:1]
        raise NotMeasuredError(f"git {arguments[0]} failed: {' '.join(said)}")
    return done.stdout


def require_commit(checkout: Path, reference: str) -> None:
    """Raise `NotMeasuredError` unless git knows the commit."""
    # A reference that begins with a dash would be an option.
    if reference.startswith("-"):
        raise NotMeasuredError(f"{reference!r} is no git reference and no file")
    try:
        git(checkout, "rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}")
    except NotMeasuredError:
        raise NotMeasuredError(
            f"{reference!r} is no file and no commit that git knows here; fetch it, or name another with --base"
        ) from None


def _stored(table: Path) -> Promises:
    folder = table.parent
    records = tuple(load_measurement(path) for path in record_files(folder))
    return _promises(table, folder, records)


def _promises(table: Path, folder: Path, records: tuple[Measurement, ...]) -> Promises:
    return Promises(
        table=load_tiers(table),
        policy=load_policy(folder / POLICY) if (folder / POLICY).is_file() else None,
        records=records,
        waivers=load_waivers(folder / WAIVERS),
        tolerance=load_tolerance(folder),
    )


def record_files(folder: Path) -> list[Path]:
    """The measurement files of a tiers folder."""
    return sorted((folder / RECORDS).glob("*.json"))


def _readable(folder: Path) -> list[Measurement]:
    found = []
    for path in record_files(folder):
        try:
            found.append(load_measurement(path))
        except InvalidInputError:
            continue
    return found


def _extract(checkout: Path, reference: str, place: Path) -> None:
    """The tiers folder of a commit."""
    require_commit(checkout, reference)
    archive = io.BytesIO(git(checkout, "archive", "--format=tar", reference, "--", "tiers"))
    with tarfile.open(fileobj=archive) as files:
        files.extractall(place, filter="data")
