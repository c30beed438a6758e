"""Compares a card with the simulation at the boundaries of a simulated record: one run on either side of each.

A campaign would ask a card everything again. The two runs beside a boundary are enough to see whether it is the card's.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from acestep.knobs import Backend, Knobs, Variant
from acestep.stage import Stage
from acestep.strict_json import read_as
from calibrate.executors.questions import Probed, Question
from calibrate.probes.base import CapMethod, MeasuredStage, ProbeResult
from calibrate.probes.messages import loading_order
from calibrate.record.measurement import Measurement, keeps_promise
from calibrate.verdict import Verdict
from calibrate.workload import Workload

Peaks = tuple[int, int]
"""How many bytes more a card allocated and reserved in a stage than the simulation says."""


class AskedCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, order=True):
    """The card of a run, how it was capped, and whether its PyTorch has flash attention and compiled the functions.

    `exact`: the simulation took cuDNN's own workspaces; a record has an allowance for them.
    """

    name: str
    capability: str
    flash: bool
    cap_method: CapMethod
    compiled: bool = False
    exact: bool = False


class CardRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One run on a card and in simulation. `size_gib` is the card whose budget is the cap of `cap_bytes`.

    `simulated` and `measured` are how it ended; a run that fits in several passes, or decodes on the CPU, is `degraded`
    here. `problem` is why the card gave no answer. `apart` has the stages that both finished.
    """

    card: AskedCard
    size_gib: float
    knobs: Knobs
    workload: Workload
    cap_bytes: int
    simulated: Verdict
    measured: Verdict
    apart: Mapping[Stage, Peaks]
    problem: str | None = None

    @property
    def alike(self) -> bool:
        """Whether both ended alike."""
        return self.simulated == self.measured

    @property
    def boundary(self) -> tuple[object, ...]:
        """What the two runs of one boundary share."""
        return self.card, self.knobs, self.workload.batch, self.cap_bytes


class CardTotal(msgspec.Struct, frozen=True, kw_only=True):
    """All runs of one variant on one card, with or without a language model: boundaries, and those that are equal.

    `apart` has the farthest of each stage, above or below the simulation.
    """

    variant: Variant
    card: AskedCard
    sizes_gib: tuple[float, ...]
    lm: bool
    boundaries: int
    equal: int
    runs: int
    apart: Mapping[Stage, Peaks]


def questions_beside(record: Measurement, caps: Iterable[int], models: Iterable[str | None]) -> list[Question]:
    """Return both runs beside each boundary under `caps` with one of `models`, in an order that loads a model once.

    A language model on another backend than PyTorch is left out, because that needs its real weights.
    """
    caps, models = set(caps), set(models)
    found: dict[Question, None] = {}
    for certificate in record.certificates:
        knobs = certificate.knobs
        if certificate.cap_bytes not in caps or knobs.lm not in models or knobs.backend is not Backend.PT:
            continue
        for index in (certificate.fits, certificate.fails):
            if index is not None:
                probe = record.probes[index]
                found[Question(knobs=probe.knobs, workload=probe.workload, cap_bytes=probe.cap_bytes)] = None
    return sorted(found, key=lambda asked: loading_order(asked.knobs))


def recorded_answers(record: Measurement) -> dict[Question, ProbeResult]:
    """Return what a simulated record says, as the simulation said it."""
    return {
        Question(knobs=probe.knobs, workload=probe.workload, cap_bytes=probe.cap_bytes): ProbeResult(
            verdict=probe.verdict,
            cap_bytes=probe.cap_bytes,
            stages=probe.stages,
            songs_per_pass=probe.songs_per_pass,
            decode_path=probe.decode_path,
            seconds=0.0,
        )
        for probe in record.probes
    }


def card_run(card: AskedCard, size_gib: float, answer: Probed, simulated: ProbeResult) -> CardRun:
    """Compare the answers of a card and of the simulation to one question."""
    probe, workload = answer.probe, answer.task.workload
    stages = {stage.name: stage for stage in simulated.stages}
    both = simulated.verdict is Verdict.FITS and probe.verdict is Verdict.FITS
    return CardRun(
        card=card,
        size_gib=size_gib,
        knobs=answer.task.knobs,
        workload=workload,
        cap_bytes=answer.task.cap_bytes,
        simulated=_ended(simulated.verdict, keeps_promise(simulated, workload.batch)),
        measured=_ended(probe.verdict, probe.counts),
        problem=answer.problem,
        apart={
            Stage(stage.name): _apart(stages[stage.name], simulated.blocks_at_peak.get(stage.name, 0), stage)
            for stage in probe.stages
            if both and stage.name in stages
        },
    )


def totals(runs: Sequence[CardRun]) -> list[CardTotal]:
    """Sum up runs by variant, card, and whether a language model planned the song."""
    groups: dict[tuple[Variant, AskedCard, bool], list[CardRun]] = {}
    for run in runs:
        key = (run.knobs.variant, run.card, run.knobs.lm is not None)
        groups.setdefault(key, []).append(run)
    return [_total(groups[key]) for key in sorted(groups)]


def runs_text(runs: Iterable[CardRun]) -> str:
    """Return the runs as a JSON list, one a line; `read_runs` reads it."""
    return "[\n" + ",\n".join(msgspec.json.encode(run).decode() for run in runs) + "\n]\n"


def read_runs(folder: Path) -> list[CardRun]:
    """Return the runs of all files of a folder; `InvalidInputError` names one that cannot be read."""
    return [run for path in sorted(folder.glob("*.json")) for run in read_as(path, list[CardRun])]


def _ended(verdict: Verdict, counts: bool) -> Verdict:
    return Verdict.DEGRADED if verdict is Verdict.FITS and not counts else verdict


def _apart(simulated: MeasuredStage, blocks: int, card: MeasuredStage) -> Peaks:
    """Bytes outside what the simulation allows for: from its tensors alone to whole blocks with every workspace."""
    least = simulated.peak_allocated_bytes
    most = max(blocks, least + simulated.allowance_bytes)
    allocated = card.peak_allocated_bytes
    return allocated - min(max(allocated, least), most), card.peak_reserved_bytes - simulated.peak_reserved_bytes


def _total(runs: Sequence[CardRun]) -> CardTotal:
    sides: dict[tuple[object, ...], bool] = {}
    farthest: dict[Stage, Peaks] = {}
    for run in runs:
        sides[run.boundary] = sides.get(run.boundary, True) and run.alike
        for stage, pair in run.apart.items():
            before = farthest.get(stage, (0, 0))
            farthest[stage] = (max(before[0], pair[0], key=abs), max(before[1], pair[1], key=abs))
    one = runs[0]
    return CardTotal(
        variant=one.knobs.variant,
        card=one.card,
        sizes_gib=tuple(sorted({run.size_gib for run in runs})),
        lm=one.knobs.lm is not None,
        boundaries=len(sides),
        equal=sum(sides.values()),
        runs=len(runs),
        apart={stage: farthest[stage] for stage in Stage if stage in farthest},
    )
