"""The promises of a tiers folder: read from a checkout for the head, from git or from a file's folder for the base."""

from pathlib import Path

import msgspec

from acestep.errors import InvalidInputError, NotMeasuredError
from acestep.tiers import TierTable, load_tiers
from calibrate.git import GitError, folder_at
from calibrate.record.measurement import Measurement, load_measurement
from calibrate.table.policy import Policy, load_policy
from calibrate.table.waivers import Waiver, load_waivers
from ci.anchor import ANCHOR, load_anchor
from ci.cells import GateCell
from ci.tolerance import FILE as TOLERANCE
from ci.tolerance import Tolerance, load_tolerance

TABLE_FILE = "generated_tiers.json"
POLICY = "policy.json"
WAIVERS = "waivers.json"
RECORDS = "measurements"


class Promises(msgspec.Struct, frozen=True, kw_only=True):
    """A table with its sources; `policy` is None for a table without a policy in its folder.

    The records of a head are those that can be read: the others are findings and do not stop the gate.
    """

    table: TierTable
    policy: Policy | None
    records: tuple[Measurement, ...]
    waivers: tuple[Waiver, ...]
    tolerance: Tolerance
    anchor: tuple[GateCell, ...]


def head_promises(table: Path, folder: Path) -> Promises:
    """Return the promises of a change, with its table given separately.

    Raises `InvalidInputError` for an unreadable file.
    """
    if not (folder / POLICY).is_file():
        raise InvalidInputError(folder / POLICY, "no such file; a table needs the policy it was made under")
    return _promises(table, folder, tuple(_readable(folder)))


def base_promises(checkout: Path, base: str) -> Promises:
    """Return the promises at a commit of a checkout: a file with the name of a commit is never looked at.

    Raises `NotMeasuredError` if there are none.
    """
    try:
        with folder_at(checkout, base, "tiers") as place:
            return stored_promises(place / "tiers" / TABLE_FILE)
    except GitError as error:
        raise NotMeasuredError(f"the base must be a commit of {checkout}: {error}") from None
    except InvalidInputError as error:
        raise NotMeasuredError(f"the base {base} cannot be read: {Path(error.source).name}: {error.problem}") from None


def stored_promises(table: Path) -> Promises:
    """Return the promises of a table and its folder; raise `InvalidInputError` for an unreadable file."""
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
        anchor=load_anchor(folder),
    )


def is_read(path: Path, table: Path, folder: Path) -> bool:
    """Return whether a path is the table, or one of its folder's files that are read if they exist."""
    place, folder = path.resolve(), folder.resolve()
    named = {table.resolve(), *((folder / name).resolve() for name in (TABLE_FILE, POLICY, WAIVERS, TOLERANCE, ANCHOR))}
    records = {folder / RECORDS, (folder / RECORDS).resolve()}
    return place in named or (place.parent in records and place.suffix == ".json")


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
