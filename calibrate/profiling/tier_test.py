"""`tier-test`: probes every tier at its own limits, with and without INT8 and offload, and finds where each can go.

Limits and knobs come from the plan that a card of each size gets; each is probed, never looked up.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set

import msgspec

from acestep.budgets import System
from acestep.hardware.card import nameplate_gib, simulated_card
from acestep.knobs import LM_MODELS, Knobs
from acestep.limits.plan import Plan, resolve
from acestep.tiers import BATCHES, TierTable
from acestep.units import gib_to_bytes
from calibrate.campaign.run import describe_probe
from calibrate.probes.base import Prober, ProbeResult
from calibrate.profiling.document import (
    TIER_TEST_SCHEMA_VERSION,
    BatchBoundary,
    NameplateGib,
    SweptBoundaries,
    SweptBoundary,
    TierTest,
    TierTestRow,
)
from calibrate.profiling.example import LONGEST_PROMPT, PromptLength
from calibrate.profiling.overlimit import missing_warnings
from calibrate.record.measurement import RecordedCardKind, keeps_promise, recorded_stages
from calibrate.table.knobs import Config, configs_of, eager, first_from_which_all_fit, without_lm
from calibrate.table.policy import Policy, budget_bytes
from calibrate.workload import Workload

RunProbe = Callable[[Knobs, Workload, int], ProbeResult]
"""Returns the prober's answer."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What `tier-test` is to find out, and the length of its prompt."""

    with_lm: bool = False
    boundary: bool = False
    batch_boundary: bool = False
    skip_compile: bool = False
    prompt: PromptLength = LONGEST_PROMPT


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A tier's promise, with or without a language model, and the knobs of every config to try it in."""

    configs: Mapping[Knobs, tuple[Config, ...]]
    workload: Workload

    @property
    def knobs(self) -> Knobs:
        """The tier's own knobs."""
        return next(iter(self.configs))


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A size, the plan of a card of that size, and what to probe.

    `alone` and `thinking` are None if nothing is promised or requested. `models` are all language models whose boundary
    is searched.
    """

    vram_gib: NameplateGib
    cap_bytes: int
    plan: Plan
    missing: tuple[str, ...]
    alone: Case | None
    thinking: Case | None
    models: Mapping[str, Case]

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases with rows of their own."""
        return tuple(case for case in (self.alone, self.thinking) if case is not None)


def trials(
    table: TierTable,
    policy: Policy,
    sizes_gib: Sequence[float],
    device: str,
    options: Options,
    system: System = System.LINUX,
) -> list[Trial]:
    """Return what will be tried, smallest size first; sizes are as cards report them, the budgets those of `system`."""
    return [
        _trial(table, budget_bytes(nameplate, policy, system), nameplate, device, options)
        for nameplate in sorted({nameplate_gib(gib_to_bytes(size)) for size in sizes_gib})
    ]


def most_trials(tried: Sequence[Trial], options: Options) -> int:
    """Return the largest number of probes of `tier_test`, each counted once."""
    batches = BATCHES if options.batch_boundary else ()
    asked = set()
    for trial in tried:
        for case in trial.cases:
            asked |= {(knobs, case.workload, trial.cap_bytes) for knobs in case.configs}
            asked |= {(case.knobs, _with_batch(case.workload, batch), trial.cap_bytes) for batch in batches}
        asked |= {(case.knobs, case.workload, trial.cap_bytes) for case in trial.models.values()}
    return len(asked)


def tier_test(tried: Sequence[Trial], prober: Prober, options: Options, progress: Callable[[str], None]) -> TierTest:
    """Probe every trial; raise `NotMeasuredError` if the prober cannot answer."""
    ask = _asker(prober, progress)
    timed = prober.device == RecordedCardKind.CUDA
    rows = tuple(row for trial in tried for row in _rows(trial, ask, timed=timed))
    return TierTest(
        schema_version=TIER_TEST_SCHEMA_VERSION,
        device=prober.device,
        results=rows,
        boundaries=_boundaries(tried, rows, ask, options) if options.boundary else None,
        batch_boundaries=tuple(_batch_boundary(trial, ask, options) for trial in tried)
        if options.batch_boundary
        else (),
        failed=tuple(sentence for trial in tried for sentence in _failures(trial, rows)),
    )


def _trial(table: TierTable, cap_bytes: int, nameplate: float, device: str, options: Options) -> Trial:
    card = simulated_card(nameplate)
    plan = resolve(card, table)
    knobs = plan.knobs
    if device == RecordedCardKind.SIMULATED or (options.skip_compile and plan.quantization is None):
        knobs = eager(knobs)
    thinking = _case(plan, knobs, options) if options.with_lm and plan.lm is not None else None
    return Trial(
        vram_gib=int(nameplate) if nameplate.is_integer() else nameplate,
        cap_bytes=cap_bytes,
        plan=plan,
        missing=missing_warnings(card, table, plan),
        alone=_case(plan, without_lm(knobs), options),
        thinking=thinking,
        models={
            model: msgspec.structs.replace(thinking, configs={_with_model(thinking.knobs, model): (Config.DEFAULT,)})
            for model in LM_MODELS
            if thinking is not None and options.boundary
        },
    )


def _case(plan: Plan, knobs: Knobs, options: Options) -> Case | None:
    """Return a plan's promise for knobs with or without a language model; None if it promises nothing."""
    lm = knobs.lm is not None
    batch, duration_s, prompt = plan.max_batch.of(lm=lm), plan.max_duration_s.of(lm=lm), options.prompt
    if not batch:
        return None
    workload = Workload(
        batch=batch,
        duration_s=float(duration_s),
        with_lm=lm,
        text_tokens=prompt.text_tokens,
        lyric_tokens=prompt.lyric_tokens,
    )
    configs = configs_of(knobs) if options.boundary else {knobs: (Config.DEFAULT,)}
    return Case(configs=configs, workload=workload)


def _with_model(knobs: Knobs, model: str) -> Knobs:
    return msgspec.structs.replace(knobs, lm=model)


def _asker(prober: Prober, progress: Callable[[str], None]) -> RunProbe:
    """Return a function that asks the prober, and never the same question twice."""
    answers: dict[tuple[Knobs, Workload, int], ProbeResult] = {}

    def ask(knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        key = (knobs, workload, cap_bytes)
        if key not in answers:
            answers[key] = prober.probe(*key)
            progress(f"{describe_probe(*key)}: {answers[key].verdict}")
        return answers[key]

    return ask


def _rows(trial: Trial, ask: RunProbe, *, timed: bool) -> Iterator[TierTestRow]:
    for promised, knobs in ((case, knobs) for case in trial.cases for knobs in case.configs):
        result = ask(knobs, promised.workload, trial.cap_bytes)
        stages = recorded_stages(result, timed=timed)
        yield TierTestRow(
            tier=trial.plan.tier,
            vram_gib=trial.vram_gib,
            variant=knobs.variant,
            config=promised.configs[knobs][0],
            configs=promised.configs[knobs],
            lm=knobs.lm,
            backend=trial.plan.backend,
            attention=knobs.attention,
            compiled=knobs.compile,
            offload=knobs.offload,
            quantization=knobs.quantization,
            batch=promised.workload.batch,
            duration_s=int(promised.workload.duration_s),
            verdict=result.verdict,
            songs_per_pass=result.songs_per_pass,
            peak_allocated_bytes=result.peak_allocated_bytes,
            peak_reserved_bytes=result.peak_reserved_bytes,
            seconds=sum(stage.seconds for stage in stages),
            decode_path=result.decode_path,
            warnings=(*trial.plan.warnings, *result.warnings, *trial.missing),
            stages=stages,
        )


def _failures(trial: Trial, rows: Sequence[TierTestRow]) -> Iterator[str]:
    """Yield what is wrong with a tier: a limit exceeded without a warning, a broken promise, or no promise at all."""
    name = f"{trial.plan.tier} at {trial.vram_gib:g} GiB"
    for sentence in trial.missing:
        yield f"{name}: {sentence}"
    if trial.alone is None:
        yield f"{name}: the table promises no song of any length."
    for row in rows:
        if row.vram_gib == trial.vram_gib and Config.DEFAULT in row.configs and not row.holds:
            songs = f"{row.batch} x {row.duration_s} s" + (f" with {row.lm}" if row.lm else "")
            yield f"{name}: {songs} is promised and does not hold (verdict {row.verdict})."


def _boundaries(
    tried: Sequence[Trial], rows: Sequence[TierTestRow], ask: RunProbe, options: Options
) -> SweptBoundaries:
    def held(config: Config) -> set[NameplateGib]:
        return {row.vram_gib for row in rows if row.lm is None and config in row.configs and row.holds}

    def thinks(trial: Trial, model: str) -> bool:
        return any(_holds(ask, case, trial.cap_bytes) for name, case in trial.models.items() if name == model)

    return SweptBoundaries(
        without_int8=_boundary(tried, held(Config.NO_QUANT)),
        without_offload=_boundary(tried, held(Config.NO_OFFLOAD)),
        lm={
            model: _boundary(tried, {trial.vram_gib for trial in tried if thinks(trial, model)})
            for model in LM_MODELS
            if options.with_lm
        },
    )


def _boundary(tried: Sequence[Trial], held: Set[NameplateGib]) -> SweptBoundary:
    first = first_from_which_all_fit([trial.vram_gib in held for trial in tried])
    return SweptBoundary(
        fits_gib=tried[first].vram_gib if first < len(tried) else 0,
        fails_gib=tried[first - 1].vram_gib if first else 0,
        tier=tried[first].plan.tier if first < len(tried) else "",
    )


def _with_batch(workload: Workload, batch: int) -> Workload:
    return msgspec.structs.replace(workload, batch=batch)


def _batch_boundary(trial: Trial, ask: RunProbe, options: Options) -> BatchBoundary:
    return BatchBoundary(
        tier=trial.plan.tier,
        vram_gib=trial.vram_gib,
        with_lm=_largest_batch(trial, trial.thinking, ask) if options.with_lm else None,
        without_lm=_largest_batch(trial, trial.alone, ask),
    )


def _largest_batch(trial: Trial, case: Case | None, ask: RunProbe) -> int:
    """Try one batch after another at the tier's longest song; return the last that fits, 0 without a case."""
    largest = 0
    for batch in BATCHES:
        if case is None or not _holds(
            ask, msgspec.structs.replace(case, workload=_with_batch(case.workload, batch)), trial.cap_bytes
        ):
            break
        largest = batch
    return largest


def _holds(ask: RunProbe, case: Case, cap_bytes: int) -> bool:
    return keeps_promise(ask(case.knobs, case.workload, cap_bytes), case.workload.batch)
