"""Judges a change as a whole: its files, its table, its policy, its records and its code."""

import datetime
import re
from collections.abc import Collection
from pathlib import Path

import msgspec

from acestep.errors import InvalidInputError, NotMeasuredError
from acestep.knobs import Variant
from calibrate.git import GitError, folder_at
from calibrate.probes.base import Simulation
from calibrate.record.measurement import Measurement
from ci import judge_records
from ci.cells import GateCell, judged_cells, lost_coverage
from ci.code_versions import is_known
from ci.counting import TellCells, counting
from ci.doors import AT_BASE, DOORS, door_tasks, drawn_doors
from ci.findings import Finding, GateVerdict, verdict_of, worst_first
from ci.harness import harness_findings, reads
from ci.head_channel import HeadPlaces
from ci.judge_code import found_once
from ci.judge_physics import physics_findings
from ci.judge_plans import PLANNED, plan_findings
from ci.judge_policy import policy_findings, tolerance_findings
from ci.judge_scenarios import base_scenario_tasks, scenario_tasks
from ci.judge_steps import step_findings
from ci.judge_table import compared_tiers, table_findings
from ci.judge_waivers import brought_findings, stale_findings, unbounded_findings, with_waivers
from ci.on_virtual_card import JudgeCells, nothing_besides
from ci.promises import POLICY, TABLE_FILE, Promises, base_promises, head_promises, record_files, stored_promises
from ci.scenarios.scenario import ScenarioResult
from ci.side_by_side import LOCAL_PLACES, cell_tasks, simulated_findings
from ci.tiers_folder import folder_findings


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The number of things that a judgement compared."""

    tiers: int
    cells: int
    records: int


class JudgeVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one judge says of a change: the `base`'s, or that of the `head`, which a change of the judge brings along.

    `verdict` is None where that judge gave none.
    """

    judge: str
    verdict: GateVerdict | None
    errors: int


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `python -m ci.gate`; the findings are sorted, the worst first.

    `judges` are the verdicts side by side where the change brings another judge, else empty. `not_simulated` are the
    variants whose code was left out because others were asked for.
    """

    verdict: GateVerdict
    base: str
    head: str
    compared: Compared
    findings: tuple[Finding, ...]
    judges: tuple[JudgeVerdict, ...] = ()
    not_simulated: tuple[Variant, ...] = ()


class AtBase(msgspec.Struct, frozen=True, kw_only=True):
    """What the code of the base did where no record says it: runs, and scenarios by name."""

    doors: tuple[GateCell, ...] = ()
    scenarios: dict[str, ScenarioResult] = {}


def judge(
    checkout: Path,
    base: str | Path,
    head: Path | None,
    today: datetime.date,
    *,
    table_only: bool,
    progress: TellCells,
    prober: Simulation | None = None,
    seed: int = 0,
    besides: JudgeCells = nothing_besides,
    places: HeadPlaces = LOCAL_PLACES,
    variants: Collection[Variant] = (),
) -> Judgement:
    """Judge a tree against its base; a file that cannot be read is a finding, not an error.

    The base is a commit of the checkout, or, for a caller in Python, the path of a table. Without a `prober`, the code
    of the checkout is run on the simulated card; `seed` draws the repeated calls that are computed there, and some of
    the runs. `besides` says more about the certified cells, `places` are where the code of the checkout runs. The code
    of `variants` is run, of all where there are none.
    """
    table = head or checkout / "tiers" / TABLE_FILE
    folder = table.parent if (table.parent / POLICY).is_file() else checkout / "tiers"
    nothing = Compared(tiers=0, cells=0, records=0)

    def answer(findings: list[Finding], compared: Compared = nothing) -> Judgement:
        sorted_findings = worst_first(findings)
        shown = str(head) if head else "this tree"
        verdict = verdict_of(sorted_findings)
        return Judgement(verdict=verdict, base=str(base), head=shown, compared=compared, findings=sorted_findings)

    if unusual := list(folder_findings(checkout / "tiers")):
        return answer(unusual)
    try:
        after = head_promises(table, folder)
    except InvalidInputError as error:
        changed = _judge_changed(checkout, base)
        broken = [] if table_only else judge_records.file_findings(record_files(folder))
        return answer([_unread(error, changed), *changed, *broken])
    try:
        before = base_promises(checkout, base) if isinstance(base, str) else stored_promises(base)
    except (NotMeasuredError, InvalidInputError) as error:
        return answer([Finding(id="G201", message=f"{error}.")])

    left_out = tuple(variant for variant in before.table.variants if variants and variant not in variants)
    findings = [*table_findings(before.table, after.table), *judge_records.table_sources_findings(before, after)]
    findings += _policy_and_tolerance(before, after)
    cells = 0
    if not table_only:
        findings += _records(checkout, base, folder, before, after)
        if table.parent == folder:
            findings += judge_records.derivation_findings(after)
        at_base = AtBase()
        if prober is None and isinstance(base, str):
            at_base, found = _by_code_of_base(checkout, base, before, after, progress, seed, places, left_out)
            findings += found
        cells, found = _code(before, after, progress, prober or (checkout, seed), besides, at_base, places, left_out)
        findings += found
    findings += _judge_changed(checkout, base)
    tiers = compared_tiers(before.table, after.table)
    if not tiers or not (cells or table_only):
        what = "tier" if not tiers else "certified cell"
        findings.append(Finding(id="G202", message=f"no {what} of the base could be compared."))
    stale = stale_findings(
        findings, after.table, after.waivers, before.waivers, today, code_judged=not table_only, not_simulated=left_out
    )
    stale += unbounded_findings(after.waivers, before.policy or after.policy)
    stale += brought_findings(findings, after.table, after.waivers, before.waivers, today)
    allowed = with_waivers(findings, after.waivers, today)
    records = 0 if table_only else len(record_files(folder))
    judgement = answer([*allowed, *stale], Compared(tiers=tiers, cells=cells, records=records))
    return msgspec.structs.replace(judgement, not_simulated=left_out)


def _policy_and_tolerance(before: Promises, after: Promises) -> list[Finding]:
    found = list(tolerance_findings(before.tolerance, after.tolerance))
    if before.policy is not None and after.policy is not None:
        return [*found, *policy_findings(before.policy, after.policy)]
    if before.table.generated_from.policy == after.table.generated_from.policy:
        return found
    message = f"the two tables were made under different policies, and there is no {POLICY} beside the base."
    return [*found, Finding(id="G201", field=POLICY, message=message)]


def _records(checkout: Path, base: str | Path, folder: Path, before: Promises, after: Promises) -> list[Finding]:
    reference = base if isinstance(base, str) else "HEAD"
    findings = judge_records.record_findings(before, after, lambda version: is_known(checkout, reference, version))
    return [*judge_records.file_findings(record_files(folder)), *findings]


def _by_code_of_base(
    checkout: Path,
    base: str,
    before: Promises,
    after: Promises,
    progress: TellCells,
    seed: int,
    places: HeadPlaces,
    left_out: Collection[Variant],
) -> tuple[AtBase, list[Finding]]:
    """What no record has, as the code of a commit runs it, and what a checkout plans for less than it."""
    variants = (before.table.variants.keys() & after.table.variants.keys()) - set(left_out)
    asked = (*DOORS, *drawn_doors(seed))
    doors: dict[str, GateCell] = {}
    scenarios: dict[str, ScenarioResult] = {}
    tasks = door_tasks(asked, variants, _stricter_share(before, after), progress, doors)
    tasks += base_scenario_tasks(variants, before.table, progress, scenarios)
    with folder_at(checkout, base, *AT_BASE) as tree:
        lost = list(simulated_findings(tasks, tree, places=places))
        plans = plan_findings(checkout, tree, variants & PLANNED)
    in_order = tuple(doors[door.name] for door in asked if door.name in doors)
    return AtBase(doors=in_order, scenarios=scenarios), [*lost, *plans]


def _stricter_share(before: Promises, after: Promises) -> float:
    return min(before.tolerance.peak_share, after.tolerance.peak_share)


def _code(
    before: Promises,
    after: Promises,
    progress: TellCells,
    by: Simulation | tuple[Path, int],
    besides: JudgeCells,
    at_base: AtBase,
    places: HeadPlaces,
    left_out: Collection[Variant],
) -> tuple[int, list[Finding]]:
    """The number of cells that were probed again, and the results, by the stricter tolerance.

    Probes `by` a simulation, or by the code of a checkout with a seed, which is asked what was done `at_base` too.
    """
    if before.policy is None:
        return 0, []
    certified, findings = judged_cells(before.table, before.policy, before.records)
    if after.policy is not None:
        _, missing = judged_cells(after.table, after.policy, after.records)
        findings += lost_coverage(certified, after.table, missing)
    cells = [cell for cell in certified if cell.variant not in left_out]
    if not cells:
        return 0, findings
    findings += besides(cells)
    share = _stricter_share(before, after)
    released = [cell for cell in before.anchor if cell.variant in before.table.variants.keys() - set(left_out)]
    judged = [*cells, *released, *at_base.doors]
    tasks = cell_tasks(judged, share, counting(progress, len(judged)), apart=places.each_cell_apart)
    tasks.append(lambda sim: step_findings(cells, sim, progress))
    tasks += scenario_tasks(at_base.scenarios, before.table, share, progress)
    there = {record.digest for record in before.records}
    for record in (one for one in after.records if one.digest not in there and not _variants(one) <= set(left_out)):
        tasks.append(lambda sim, record=record: physics_findings(record, before.records, sim, progress))  # type: ignore[misc]
    if isinstance(by, tuple):
        found = list(simulated_findings(tasks, *by, places=places))
    else:
        found = [finding for task in tasks for finding in task(by)]
    return len(cells) + len(at_base.doors), [*findings, *found_once(found)]


def _unread(error: InvalidInputError, changed: list[Finding]) -> Finding:
    """A file of the change that this code cannot read; the change may have brought the code that can."""
    named = re.search(r"\.variants\.([\w-]{1,40})", error.problem)
    rule, message = "G101", f"{error}."
    if any(reads(finding) for finding in changed):
        rule = "G207"
        message = (
            f"{error}, says the base; the change brings other code that reads files, which may know more. A"
            " maintainer has to review it, and this can be compared after it is merged."
        )
    return Finding(id=rule, variant=named[1] if named else "", field=str(error.source), message=message)


def _variants(record: Measurement) -> set[Variant]:
    return {probe.knobs.variant for probe in record.probes}


def _judge_changed(checkout: Path, base: str | Path) -> list[Finding]:
    if not isinstance(base, str):
        return []
    try:
        return list(harness_findings(checkout, base))
    except GitError as error:
        return [Finding(id="G204", message=f"git cannot tell whether the judge is changed: {error}.")]
