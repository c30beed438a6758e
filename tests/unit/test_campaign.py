"""A campaign asks what a table needs, once, and its certificates are true."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.errors import NotMeasuredError
from acestep.knobs import Knobs, Variant
from acestep.request import DecodePath
from calibrate.campaign import Scope, least_probes, most_probes, run_campaign
from calibrate.executors.alone import Alone
from calibrate.knobs import Config, configs_of, configured, first_from_which_all_fit, ladder, preferred
from calibrate.policy import load_policy
from calibrate.probes.base import ProbeResult
from calibrate.record import Certificate
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.fakes import AnalyticProber, ScriptedProber, measured, result

POLICY = load_policy()
RUNGS = ladder(POLICY, Variant.TURBO)


def scope_of(sizes: Sequence[float], **more: Any) -> Scope:
    return Scope(variant=Variant.TURBO, sizes_gib=tuple(sizes), **more)


sizes = st.lists(st.floats(2.5, 30), min_size=1, max_size=3)


@settings(max_examples=30, deadline=None)
@given(sizes)
def test_no_probe_is_asked_twice_and_their_number_is_announced(swept: list[float]) -> None:
    prober = AnalyticProber()
    scope = scope_of(swept)
    run_campaign(Alone(prober), POLICY, scope, progress=lambda _: None)
    assert least_probes(POLICY, scope) > 0
    assert len(prober.asked) == len(set(prober.asked)) <= most_probes(POLICY, scope)


def workload_of(certificate: Certificate, seconds: float) -> Workload:
    return Workload(batch=certificate.batch, duration_s=seconds, with_lm=certificate.knobs.lm is not None)


@settings(max_examples=30, deadline=None)
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
    run_campaign(Alone(prober), POLICY, scope_of([8]), progress=lines.append)
    assert len(lines) == len(prober.asked) + 1, "and one for the guard's coefficients"


@pytest.mark.parametrize("verdict", [Verdict.CRASHED, Verdict.TIMEOUT, Verdict.TAINTED])
def test_a_probe_without_an_answer_ends_the_campaign_instead_of_counting_as_no_fit(verdict: Verdict) -> None:
    with pytest.raises(NotMeasuredError, match=verdict):
        run_campaign(Alone(ScriptedProber([verdict])), POLICY, scope_of([8]), progress=lambda _: None)


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
def test_a_boundary_is_where_the_last_lapse_is_behind(answers: list[bool]) -> None:
    first = first_from_which_all_fit(answers)
    assert all(answers[first:])
    assert first == 0 or not answers[first - 1]
