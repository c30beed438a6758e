"""A campaign asks what a table needs, once, and its certificates are true."""

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.errors import NotMeasuredError
from acestep.knobs import LM_MODELS, Backend, Knobs, Variant
from acestep.request import DecodePath
from acestep.units import GIB, MIB
from calibrate.campaign.boundary import Method
from calibrate.campaign.run import CampaignScope, run_campaign
from calibrate.executors.alone import CardAlone, SimulationAlone
from calibrate.probes.base import SIMULATED_CARD, UNCONDITIONED, ProbeResult
from calibrate.record.measurement import UNSEALED, Certificate
from calibrate.search import failures_needed
from calibrate.table.choice import TierChoice, choose_tier, thinking
from calibrate.table.knobs import Config, configs_of, configured, first_from_which_all_fit, ladder, preferred
from calibrate.table.merge import build_table
from calibrate.table.policy import Policy, TierPolicy, budget_bytes, load_policy
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.fakes import AnalyticProber, ScriptedProber, measured, result
from tests.oracles import most_points

POLICY = load_policy()
RUNGS = ladder(POLICY, Variant.TURBO)


def scope_of(sizes: Sequence[float], **more: Any) -> CampaignScope:
    return CampaignScope(variant=Variant.TURBO, sizes_gib=tuple(sizes), **more)


def most_probes(policy: Policy, scope: CampaignScope, spurious_rate: float = 0.0) -> int:
    """The largest number of probes of a campaign on a card with this spurious rate."""
    each = 2 + most_points(len(policy.durations_s.values))
    points = 0
    for tier in map(policy.tier_of, scope.sizes_gib):
        thinking = len(scope.models) * sum(backend in scope.backends for backend in tier.backends_allowed)
        rungs = len(policy.preference) * (1 + thinking * len(tier.lm_quantizations))
        batches = (1 + thinking) * (len(policy.batches.values) - 1)
        points += (rungs + batches) * each + len(Config) + (2 if scope.in_full else 0)
    return points * failures_needed(spurious_rate)


sizes = st.lists(st.floats(2.5, 30), min_size=1, max_size=3)


@settings(max_examples=30)
@given(sizes)
def test_no_probe_is_asked_twice_and_their_number_is_bounded(swept: list[float]) -> None:
    prober = AnalyticProber()
    scope = scope_of(swept)
    run_campaign(SimulationAlone(prober), POLICY, scope, progress=lambda _: None)
    assert prober.asked
    assert len(prober.asked) == len(set(prober.asked)) <= most_probes(POLICY, scope)


def workload_of(certificate: Certificate, seconds: float) -> Workload:
    return Workload(batch=certificate.batch, duration_s=seconds, with_lm=certificate.knobs.lm is not None)


@settings(max_examples=30)
@given(sizes)
def test_every_certificate_is_what_trying_every_length_would_find(swept: list[float]) -> None:
    prober = AnalyticProber()
    record = measured(prober, swept)
    for certificate in record.certificates:
        fitting = [
            seconds
            for seconds in POLICY.durations_s.values
            if prober.need(certificate.knobs, workload_of(certificate, seconds)) <= certificate.cap_bytes
        ]
        found = record.longest(certificate)
        # A larger batch is not tried above what a smaller one reaches; here more songs never need less.
        assert found == max(fitting, default=0)


def test_a_line_of_progress_is_given_for_every_probe() -> None:
    lines: list[str] = []
    prober = AnalyticProber()
    run_campaign(SimulationAlone(prober), POLICY, scope_of([8]), progress=lines.append)
    assert len(lines) == len(prober.asked) + 2, "and one before the first, and one for the guard's coefficients"


@pytest.mark.parametrize("verdict", [Verdict.CRASHED, Verdict.TIMEOUT, Verdict.TAINTED])
def test_a_probe_without_an_answer_ends_the_campaign_instead_of_counting_as_no_fit(verdict: Verdict) -> None:
    with pytest.raises(NotMeasuredError, match=verdict):
        run_campaign(SimulationAlone(ScriptedProber([verdict])), POLICY, scope_of([8]), progress=lambda _: None)


class Halving(AnalyticProber):
    """Everything fits, but a batch above 2 only in passes of two songs, and long songs are decoded on the CPU."""

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        path = DecodePath.CPU if workload.duration_s > 300 else DecodePath.GPU
        return result(
            Verdict.FITS, workload, cap_bytes, peak=1, songs_per_pass=min(workload.batch, 2), decode_path=path
        )


def test_passes_at_denoise_and_decoding_on_the_cpu_never_count() -> None:
    record = measured(Halving())
    reached = {c.batch: record.longest(c) for c in record.certificates if c.knobs == RUNGS[0]}
    assert reached == {1: 300, 2: 300, 4: 0}


@given(st.dictionaries(st.sampled_from(RUNGS), st.sampled_from([0, 60, 600]), min_size=1))
def test_the_preferred_rung_reaches_furthest_and_none_before_it_does(reach: dict[Knobs, int]) -> None:
    chosen = preferred(reach)
    furthest = max(reach.values())
    assert reach[chosen] == furthest
    if furthest:
        before = list(reach)[: list(reach).index(chosen)]
        assert all(reach[knobs] < furthest for knobs in before)


@given(st.sampled_from(RUNGS))
def test_configs_give_up_int8_first_and_offload_second_and_equal_ones_share_a_probe(knobs: Knobs) -> None:
    configs = configs_of(knobs)
    assert [config for names in configs.values() for config in names] == list(Config)
    assert configs[configured(knobs, Config.DEFAULT)][0] is Config.DEFAULT
    no_quant = configured(knobs, Config.NO_QUANT)
    assert (no_quant.quantization, no_quant.offload) == (None, knobs.offload)
    assert configured(knobs, Config.NO_OFFLOAD) == Knobs(variant=knobs.variant)


@given(st.lists(st.booleans()))
def test_a_boundary_is_above_the_last_size_that_fails(answers: list[bool]) -> None:
    first = first_from_which_all_fit(answers)
    assert all(answers[first:])
    assert first == 0 or not answers[first - 1]


class Sweep:
    """Every question there is, asked of a card: all tiers, rungs, language models, batches and lengths."""

    def __init__(self) -> None:
        self.prober = AnalyticProber()
        self.fitting: dict[tuple[int, Knobs, int], list[int]] = {}
        for tier in POLICY.tiers:
            cap_bytes = budget_bytes(tier.certified_gib, POLICY)
            for knobs, batch in product(self._knobs(tier), POLICY.batches.values):
                self.fitting[cap_bytes, knobs, batch] = [
                    seconds for seconds in POLICY.durations_s.values if self._fits(knobs, batch, seconds, cap_bytes)
                ]

    def chosen(self, tier: TierPolicy) -> TierChoice:
        cap_bytes = budget_bytes(tier.certified_gib, POLICY)

        def ask(knobs: Knobs, batch: int, at_most: int) -> int:
            return max((s for s in self.fitting[cap_bytes, knobs, batch] if s <= at_most), default=0)

        return choose_tier(ask, POLICY, tier, Variant.TURBO)

    def _knobs(self, tier: TierPolicy) -> Iterator[Knobs]:
        backends = [backend for backend in tier.backends_allowed if backend is not Backend.MLX]
        for rung in RUNGS:
            yield rung
            for model, quantization, backend in product(LM_MODELS, tier.lm_quantizations, backends):
                yield thinking(rung, model, quantization, backend)

    def _fits(self, knobs: Knobs, batch: int, seconds: int, cap_bytes: int) -> bool:
        workload = Workload(batch=batch, duration_s=float(seconds), with_lm=knobs.lm is not None)
        return self.prober.probe(knobs, workload, cap_bytes).verdict is Verdict.FITS


def test_at_most_a_third_of_the_exhaustive_sweep_finds_the_same() -> None:
    sweep, prober = Sweep(), AnalyticProber()
    record = measured(prober)
    for tier in POLICY.tiers:
        cap_bytes = budget_bytes(tier.certified_gib, POLICY)
        certified = {(c.knobs, c.batch): record.longest(c) for c in record.certificates if c.cap_bytes == cap_bytes}
        found = choose_tier(lambda knobs, batch, _: certified[knobs, batch], POLICY, tier, Variant.TURBO)  # noqa: B023
        assert found == sweep.chosen(tier)
    assert len(prober.asked) * 3 <= len(sweep.prober.asked)


def test_no_more_probes_than_halving_with_the_two_ends_first() -> None:
    asked = set()
    oracle, prober = AnalyticProber(), AnalyticProber()
    for tier in POLICY.tiers:
        cap_bytes = budget_bytes(tier.certified_gib, POLICY)
        reach: dict[tuple[Knobs, int], int] = {}

        def halved(knobs: Knobs, batch: int, at_most: int, cap_bytes: int = cap_bytes) -> int:
            grid = [seconds for seconds in POLICY.durations_s.values if seconds <= at_most]
            low, high, trials = 0, len(grid), [len(grid) - 1, 0]
            while low < high:
                middle = trials.pop(0) if trials else (low + high) // 2
                workload = Workload(batch=batch, duration_s=float(grid[middle]), with_lm=knobs.lm is not None)
                asked.add((knobs, workload, cap_bytes))
                fits = oracle.need(knobs, workload) <= cap_bytes
                low, high = (middle + 1, high) if fits else (low, middle)
            return grid[low - 1] if low else 0

        def once(knobs: Knobs, batch: int, at_most: int, reach: Any = reach, halved: Any = halved) -> int:
            if (knobs, batch) not in reach:
                reach[knobs, batch] = halved(knobs, batch, at_most)
            return int(reach[knobs, batch])

        choose_tier(once, POLICY, tier, Variant.TURBO)
    record = measured(prober)
    beside = len(record.probes) - len({i for c in record.certificates for i in (c.fits, c.fails)})
    assert len(prober.asked) <= len(asked) + beside


def test_a_model_is_loaded_again_only_where_a_decision_had_to_be_waited_for() -> None:
    prober = AnalyticProber()
    measured(prober)
    loads = 1 + sum(before[0] != after[0] for before, after in pairwise(prober.asked))
    one_after_another = 0
    for size in POLICY.certified_sizes_gib:
        alone = AnalyticProber()
        measured(alone, (size,))
        one_after_another += 1 + sum(before[0] != after[0] for before, after in pairwise(alone.asked))
    assert loads <= 0.8 * one_after_another


@pytest.mark.parametrize("models", [(), ("1.7B",), ("0.6B", "4B")])
def test_language_models_that_are_left_out_are_not_probed_and_such_a_record_makes_no_table(
    models: tuple[str, ...],
) -> None:
    prober = AnalyticProber()
    findings = run_campaign(
        SimulationAlone(prober), POLICY, scope_of(POLICY.certified_sizes_gib, models=models), progress=lambda _: None
    )
    assert {knobs.lm for knobs, _, _ in prober.asked} - {None} == set(models)
    record = msgspec.structs.replace(
        measured(), probes=findings.probes, certificates=findings.certificates, digest=UNSEALED
    ).sealed()
    with pytest.raises(NotMeasuredError, match="no record covers tier1"):
        build_table([record], POLICY)
    assert build_table([record, measured()], POLICY) == msgspec.structs.replace(
        build_table([measured()], POLICY),
        generated_from=build_table([record, measured()], POLICY).generated_from,
    )


class RealCard(AnalyticProber):
    """A card that can run requests to their end, and at times says out of memory though there was some."""

    device = "cuda"
    card = SIMULATED_CARD
    conditions = UNCONDITIONED

    def __init__(self, *, spurious_rate: float = 0.0, in_full: int = 0) -> None:
        super().__init__()
        self.certified: list[tuple[Knobs, Workload, int]] = []
        self.closed = 0
        self._chance = random.Random(5)  # noqa: S311 a test's dice
        self._spurious_rate = spurious_rate
        self._in_full = in_full

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        answer = super().probe(knobs, workload, cap_bytes)
        if answer.verdict is Verdict.FITS and self._chance.random() < self._spurious_rate:
            return result(Verdict.OOM, workload, cap_bytes, peak=1)
        return answer

    def certify(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        self.certified.append((knobs, workload, cap_bytes))
        peak = self.need(knobs, workload) + self._in_full
        return result(Verdict.FITS if peak <= cap_bytes else Verdict.OOM, workload, cap_bytes, peak=1)

    def close(self) -> None:
        self.closed += 1


def forecast(knobs: Knobs, workload: Workload) -> int:
    return AnalyticProber().need(knobs, workload) * 105 // 100


def test_spurious_failures_are_detected_and_headlines_run_in_full() -> None:
    card, scope = RealCard(spurious_rate=0.05), scope_of([4, 12], in_full=True)
    executor = CardAlone(card)
    findings = run_campaign(executor, POLICY, scope, lambda _: None, method=Method(forecast=forecast))
    truth = measured(sizes=(4, 12))
    reached = {(c.knobs, c.cap_bytes, c.batch): c.fits is not None for c in findings.certificates}
    assert reached == {(c.knobs, c.cap_bytes, c.batch): c.fits is not None for c in truth.certificates}
    assert {probe.asked for probe in findings.probes if probe.verdict is Verdict.OOM} == {6}
    whole = [probe for probe in findings.probes if probe.workload.steps == 8]
    assert len(whole) == len(card.certified) == 4, "two sizes, with and without a language model"
    assert all(probe.counts for probe in whole)
    assert len(card.asked) <= most_probes(POLICY, scope, spurious_rate=0.05)
    executor.close()
    assert card.closed == 1


def test_a_headline_that_holds_in_two_steps_and_not_in_full_ends_the_campaign() -> None:
    card = RealCard(in_full=30 * GIB)
    with pytest.raises(NotMeasuredError, match="not in full"):
        run_campaign(CardAlone(card), POLICY, scope_of([24], in_full=True), lambda _: None)


class Pocket(AnalyticProber):
    """Two songs of five minutes fail, and longer ones fit."""

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        if (workload.batch, workload.duration_s) == (8, 300.0):
            self.asked.append((knobs, workload, cap_bytes))
            return result(Verdict.OOM, workload, cap_bytes, peak=1)
        return super().probe(knobs, workload, cap_bytes)


def test_an_uncertain_boundary_is_named_and_counts_as_no_fit() -> None:
    told: list[str] = []
    method = Method(spurious_rate=0.0, forecast=lambda knobs, w: forecast(knobs, w) + w.batch * int(w.duration_s) * MIB)
    findings = run_campaign(SimulationAlone(Pocket()), POLICY, scope_of([4, 5]), told.append, method=method)
    assert findings.uncertain
    assert set(findings.uncertain) <= set(told)
    contradicted = [c for c in findings.certificates if c.fits is None and c.batch == 8]
    assert len(contradicted) >= len(findings.uncertain)
