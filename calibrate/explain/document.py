"""The result of `python -m calibrate explain`, as values; bytes are ints."""

from typing import Any

import msgspec

from acestep.evidence import Evidence
from acestep.knobs import Knobs
from acestep.request import DecodePath
from calibrate.probes.base import MeasuredStage
from calibrate.record.measurement import RecordedCard
from calibrate.verdict import Verdict
from calibrate.workload import Workload


class BudgetTerm(msgspec.Struct, frozen=True, kw_only=True):
    """What one entry of policy.json subtracts from a nameplate, its rule, and the entry's reason."""

    name: str
    gib: float
    rule: str
    why: str


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """The cap of a certified size: its nameplate minus the terms."""

    nameplate_gib: int
    terms: tuple[BudgetTerm, ...]
    cap_bytes: int


class PolicyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of policy.json that decides a field, or that a search followed."""

    place: str
    value: Any
    why: str


class ExplainedSource(msgspec.Struct, frozen=True, kw_only=True):
    """The record that a field rests on: its file, digest and card, and the code that made it."""

    file: str
    digest: str
    card: RecordedCard
    code_version: str


class ExplainedProbe(msgspec.Struct, frozen=True, kw_only=True):
    """A probe by its index in `probes` of its record; `repeat` is the command that asks the simulated card the same."""

    record: str
    index: int
    knobs: Knobs
    workload: Workload
    cap_bytes: int
    verdict: Verdict
    songs_per_pass: int
    decode_path: DecodePath
    stages: tuple[MeasuredStage, ...]
    repeat: str


class ExplainedCell(msgspec.Struct, frozen=True, kw_only=True):
    """One value of the table and its origin.

    `fits` is the largest run that fits and `fails` the smallest that does not. If there is none, `no_fits` or
    `no_fails` says why; a field of the policy has neither probes nor sources.
    """

    field: str
    value: Any
    promise: str
    evidence: Evidence
    rule: str
    sources: tuple[ExplainedSource, ...] = ()
    budgets: tuple[Budget, ...] = ()
    policy: tuple[PolicyEntry, ...] = ()
    fits: ExplainedProbe | None = None
    no_fits: str = ""
    fails: ExplainedProbe | None = None
    no_fails: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer for a field; one that holds several values, such as `max_batch`, has a cell for each."""

    variant: str
    tier: str
    label: str
    field: str
    value: Any
    cells: tuple[ExplainedCell, ...]
