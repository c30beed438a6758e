"""Probers without a pipeline: one that computes, one that reads from a script; both refuse impossible results."""

from collections.abc import Iterable, Iterator
from functools import cache

from acestep.budgets import System
from acestep.knobs import Knobs, Offload, Quantization, Variant
from acestep.request import MAX_BATCH, MAX_DURATION_S, DecodePath
from acestep.units import KIB, MIB
from calibrate.campaign.run import CampaignScope, run_campaign
from calibrate.executors.alone import SimulationAlone
from calibrate.probes.base import SIMULATED_CARD, MeasuredStage, ProbeResult, Simulation
from calibrate.record.measurement import Measurement, RecordedCard, RecordedCardKind, measurement_of
from calibrate.table.policy import Policy, load_policy
from calibrate.verdict import Verdict
from calibrate.workload import Workload

RESIDENT = {
    Offload.NONE: 6000 * MIB,
    Offload.CPU: 4200 * MIB,
    Offload.CPU_DIT: 3000 * MIB,
    Offload.STREAM: 1300 * MIB,
}
INT8_SAVES = 1500 * MIB
BYTES_PER_SECOND = MIB // 2
LM_WEIGHTS = {"0.6B": 1264 * MIB, "1.7B": 3537 * MIB, "4B": 7991 * MIB}
LM_CACHE = {"0.6B": 112, "1.7B": 112, "4B": 144}
"""KiB of keys and values a token."""


def require_possible(knobs: Knobs, workload: Workload, cap_bytes: int) -> None:
    """Raise `AssertionError` for a probe that no prober could be asked for."""
    assert cap_bytes > 0, f"a cap must be positive, got {cap_bytes}"
    assert workload.batch <= MAX_BATCH, f"no request has a batch of {workload.batch}"
    assert workload.duration_s <= MAX_DURATION_S, f"no request is {workload.duration_s} s long"
    assert workload.with_lm == (knobs.lm is not None), "a workload thinks exactly where the knobs name a model"
    assert (knobs.lm or "0.6B") in LM_WEIGHTS, f"there is no language model {knobs.lm}"
    assert knobs.lm is not None or knobs.lm_quantization is None, "only a language model is quantized as one"
    assert 2 <= workload.steps <= 20, f"probes run two steps, and the gate up to twenty, got {workload.steps}"


class AnalyticProber:
    """A card whose memory is a formula: what stays resident, and half a MiB for each second of each song.

    `asked` lists every probe in order, so that a test can count them.
    """

    device = "simulated"

    def __init__(self) -> None:
        self.asked: list[tuple[Knobs, Workload, int]] = []

    def need(self, knobs: Knobs, workload: Workload) -> int:
        """The bytes a run takes, however few songs it thinks of at once."""
        stays = lm_bytes(knobs) if knobs.offload is Offload.NONE else 0
        return max(stays + self.music_bytes(knobs, workload), self.think_bytes(knobs, workload, 1))

    def music_bytes(self, knobs: Knobs, workload: Workload) -> int:
        """The bytes of every stage after thinking."""
        return self.resting_bytes(knobs) + int(workload.batch * workload.duration_s) * BYTES_PER_SECOND

    def resting_bytes(self, knobs: Knobs) -> int:
        """What is on the card throughout."""
        return RESIDENT[knobs.offload] - (INT8_SAVES if knobs.quantization is Quantization.INT8 else 0)

    def think_bytes(self, knobs: Knobs, workload: Workload, songs: int) -> int:
        """The bytes of thinking of some songs at once; 0 without a language model."""
        if knobs.lm is None:
            return 0
        tokens = 3200 + int(5 * workload.duration_s)
        beside = 0 if knobs.offload in (Offload.CPU_DIT, Offload.STREAM) else self.resting_bytes(knobs)
        return beside + lm_bytes(knobs) + 2 * songs * tokens * LM_CACHE[knobs.lm] * KIB

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        require_possible(knobs, workload, cap_bytes)
        assert not knobs.compile, "a simulated card compiles nothing"
        self.asked.append((knobs, workload, cap_bytes))
        peak = self.need(knobs, workload)
        verdict = Verdict.FITS if peak <= cap_bytes else Verdict.OOM
        at_once = [n for n in range(1, workload.batch + 1) if self.think_bytes(knobs, workload, n) <= cap_bytes]
        return result(verdict, workload, cap_bytes, peak=min(peak, cap_bytes), thought_at_once=max(at_once, default=1))

    def memory_model(self, variant: Variant) -> dict[str, float]:
        return {}

    def smallest_caps(self, knobs: Knobs, workload: Workload) -> dict[str, int]:
        require_possible(knobs, workload, 1)
        need = self.need(knobs, workload)
        return {"encode": need // 2, "denoise": need, "decode": need // 2, "total": need}


class Hungry(AnalyticProber):
    """The same card after a change that makes every run take `extra` bytes more."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def resting_bytes(self, knobs: Knobs) -> int:
        return super().resting_bytes(knobs) + self.extra


def lm_bytes(knobs: Knobs) -> int:
    """The weights of the language model, if there is one."""
    whole = 0 if knobs.lm is None else LM_WEIGHTS[knobs.lm]
    return whole if knobs.lm_quantization is None else whole * 6 // 10


class ScriptedProber:
    """Answers with the verdicts of a script, in order; fails when asked more often than the script is long."""

    def __init__(self, script: Iterable[ProbeResult | Verdict], *, device: str = "simulated") -> None:
        self.device = device
        self._script: Iterator[ProbeResult | Verdict] = iter(script)

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        require_possible(knobs, workload, cap_bytes)
        answer = next(self._script, None)
        assert answer is not None, f"the script has ended, asked for {workload} under {cap_bytes}"
        return answer if isinstance(answer, ProbeResult) else result(answer, workload, cap_bytes, peak=MIB)

    def memory_model(self, variant: Variant) -> dict[str, float]:
        raise AssertionError(f"the script has no memory model of {variant}")

    def smallest_caps(self, knobs: Knobs, workload: Workload) -> dict[str, int]:
        raise AssertionError(f"the script has no caps for {workload}")


def result(
    verdict: Verdict,
    workload: Workload,
    cap_bytes: int,
    *,
    peak: int,
    songs_per_pass: int = 0,
    decode_path: DecodePath = DecodePath.GPU,
    thought_at_once: int = 1,
) -> ProbeResult:
    """A result whose denoise stage is at `peak`; one denoise pass unless told otherwise."""
    sizes = (("think", peak // 2),) if workload.with_lm else ()
    stages = tuple(
        MeasuredStage(
            name=name,
            seconds=1.5,
            songs_per_pass=thought_at_once if name == "think" else 1,
            peak_allocated_bytes=size,
            peak_reserved_bytes=size,
            resident_bytes=size // 2,
            allowance_bytes=0,
        )
        for name, size in (*sizes, ("encode", peak // 2), ("denoise", peak), ("decode", peak // 2))
    )
    return ProbeResult(
        verdict=verdict,
        cap_bytes=cap_bytes,
        stages=stages,
        songs_per_pass=songs_per_pass or workload.batch,
        decode_path=decode_path,
        seconds=4.5,
        live_at_peak={s.name: _live(s.peak_allocated_bytes) for s in stages},
    )


def _live(size: int) -> dict[str, int]:
    return {"transformer": size // 2, "activations": size // 3}


def measured(
    prober: Simulation | None = None,
    sizes: Iterable[float] = (),
    policy: Policy | None = None,
    system: System = System.LINUX,
) -> Measurement:
    """The record of a campaign run against a fake, over the policy's sizes unless told otherwise."""
    if prober is None and policy is None and system is System.LINUX:
        return _measured_by_formula(tuple(sizes))
    return _measured(prober or AnalyticProber(), tuple(sizes), policy or load_policy(), system)


@cache
def _measured_by_formula(sizes: tuple[float, ...]) -> Measurement:
    """What most tests begin with."""
    return _measured(AnalyticProber(), sizes, load_policy(), System.LINUX)


def _measured(prober: Simulation, sizes: tuple[float, ...], policy: Policy, system: System) -> Measurement:
    findings = run_campaign(
        SimulationAlone(prober),
        policy,
        CampaignScope(variant=Variant.TURBO, sizes_gib=sizes or policy.certified_sizes_gib, system=system),
        progress=lambda _: None,
    )
    card = RecordedCard(
        kind=RecordedCardKind.SIMULATED,
        name=SIMULATED_CARD.name,
        compute_capability="8.6",
        total_bytes=0,
        system=system,
    )
    return measurement_of(card, findings.probes, findings.certificates)
