"""The reported errors of the simulated card are right, and never smaller than the card's answers allow.

The measured records here are computed from a formula; no card was used.
"""

import csv
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.cli.console import run_click
from acestep.errors import Exit, NotMeasuredError
from acestep.knobs import Knobs, Offload
from acestep.units import GIB
from calibrate.campaign import probers
from calibrate.campaign.reality import UNDER, WITHIN, ComparedNumber, Nearness, Quantity, measured_cap, reality_of
from calibrate.cli import cli
from calibrate.files import pretty_json
from calibrate.probes.base import CapMethod, ProbeResult
from calibrate.record.measurement import Measurement, RecordedCard, RecordedCardKind, RecordedProbe, measurement_of
from calibrate.workload import Workload
from tests.fakes import AnalyticProber, measured

CARD = RecordedCard(kind=RecordedCardKind.CUDA, name="Made Up 24", compute_capability="8.6", total_bytes=24 * GIB)


class Scaled(AnalyticProber):
    """The formula of the other fakes, with every need a share more."""

    device = "cuda"

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def need(self, knobs: Knobs, workload: Workload) -> int:
        return int(super().need(knobs, workload) * self._factor)


def probed(card: AnalyticProber, caps: list[int], durations: list[float]) -> tuple[RecordedProbe, ...]:
    return tuple(
        RecordedProbe.of(
            Knobs(offload=offload),
            (workload := Workload(batch=1, duration_s=seconds)),
            card.probe(Knobs(offload=offload), workload, cap),
            timed=True,
        )
        for offload in (Offload.NONE, Offload.CPU_DIT)
        for seconds in durations
        for cap in caps
    )


def recorded(factor: float, caps: list[int] | None = None) -> Measurement:
    probes = probed(Scaled(factor), caps or [2 * GIB, 12 * GIB], [60.0, 600.0])
    return measurement_of(CARD, probes, (), cap_method=CapMethod.FRACTION)


@given(st.floats(0.5, 2.0))
def test_every_stage_is_as_far_off_as_the_card_is(factor: float) -> None:
    found = reality_of(recorded(factor), AnalyticProber())
    assert {(e.stage, e.quantity) for e in found.errors} == {
        *((stage, q) for stage in ("encode", "denoise", "decode") for q in (Quantity.ALLOCATED, Quantity.RESERVED)),
        ("total", Quantity.SMALLEST_CAP),
    }
    for errors in found.errors:
        assert errors.worst == pytest.approx(1 / factor - 1, abs=1e-6)
        assert errors.mean == pytest.approx(abs(1 / factor - 1), abs=1e-6)
        assert (errors.under > 0) == (errors.worst_under < 0) == (errors.mean_under < 0)
        if abs(factor - 1) > 1e-6:
            assert errors.under == (errors.compared if factor > 1 else 0)
    assert [pair.error for pair in found.pairs] == sorted(pair.error for pair in found.pairs)


@pytest.mark.parametrize(
    ("factor", "near"), [(1.0, True), (1.019, True), (1.03, False), (0.96, True), (0.94, False), (0.5, False)]
)
def test_a_smallest_cap_is_near_within_five_percent_and_at_most_two_under(factor: float, near: bool) -> None:
    caps = reality_of(recorded(factor), AnalyticProber()).caps
    assert (caps.near > 0, caps.far > 0, caps.open) == (near, not near, 0)
    assert caps.reached == near


def test_a_record_that_judges_no_cap_reaches_nothing() -> None:
    assert not Nearness(near=0, far=0, open=7).reached
    assert Nearness(near=19, far=1, open=0).reached
    assert not Nearness(near=18, far=1, open=0).reached


sizes = st.integers(1, 1 << 40)


@given(sizes, sizes, sizes)
def test_an_error_is_the_least_that_the_card_allows(simulated: int, one: int, other: int) -> None:
    low, high = sorted((one, other))
    pair = ComparedNumber(
        probe=0,
        stage="total",
        quantity=Quantity.SMALLEST_CAP,
        simulated=simulated,
        measured=high,
        measured_from=low,
    )
    for real in {low, (low + high) // 2, high}:
        exact = (simulated - real) / real
        assert abs(pair.error) <= abs(exact)
        if pair.near:
            assert -UNDER <= exact <= WITHIN
        if pair.far:
            assert not -UNDER <= exact <= WITHIN
    assert not (pair.near and pair.far)


@given(st.lists(st.integers(1, 16), min_size=1, max_size=6, unique=True))
def test_the_card_s_smallest_cap_lies_in_its_bracket(caps_gib: list[int]) -> None:
    card, workload = Scaled(1.0), Workload(batch=1, duration_s=600.0)
    probes = probed(card, [n * GIB for n in caps_gib], [workload.duration_s])
    for offload in (Offload.NONE, Offload.CPU_DIT):
        alike = [probe for probe in probes if probe.knobs.offload is offload]
        least, enough = measured_cap(alike)
        need = card.need(Knobs(offload=offload), workload)
        assert least <= enough
        if any(probe.counts for probe in alike):
            assert least <= need <= enough
        else:
            assert enough == 0


def test_what_a_smaller_cap_would_change_narrows_no_bracket() -> None:
    """Decoding held more than anything else, in tiles that a smaller cap would have made smaller."""
    [probe] = [p for p in recorded(1.0).probes if p.counts][:1]
    decode = msgspec.structs.replace(probe.stages[-1], peak_allocated_bytes=9 * GIB, peak_reserved_bytes=9 * GIB)
    needed = max(stage.peak_allocated_bytes for stage in probe.stages[:-1])
    widened = msgspec.structs.replace(probe, stages=(*probe.stages[:-1], decode))
    assert measured_cap([widened]) == (needed, 9 * GIB)


def test_a_card_whose_context_took_part_of_the_cap_is_faced_under_what_was_left() -> None:
    knobs, workload = Knobs(), Workload(batch=1, duration_s=600.0)
    need = AnalyticProber().need(knobs, workload)
    answer = msgspec.structs.replace(AnalyticProber().probe(knobs, workload, need - 1), cap_bytes=need + GIB)
    probe = RecordedProbe.of(knobs, workload, msgspec.structs.replace(answer, withheld_bytes=GIB + 1), timed=True)
    assert probe.allocator_bytes == need - 1
    found = reality_of(measurement_of(CARD, (probe,), (), cap_method=CapMethod.FRACTION), AnalyticProber())
    assert (found.verdicts.alike, found.verdicts.only_simulated_fits) == (1, 0)


@given(inside=st.floats(0, 1), beyond=st.floats(0.01, 0.5))
def test_workspaces_that_a_card_counted_as_allocated_are_no_error_within_the_allowance(
    inside: float, beyond: float
) -> None:
    knobs, workload, allowance = Knobs(), Workload(batch=1, duration_s=60.0), GIB

    class Allowing(AnalyticProber):
        def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
            answer = super().probe(knobs, workload, cap_bytes)
            stages = tuple(msgspec.structs.replace(stage, allowance_bytes=allowance) for stage in answer.stages)
            return msgspec.structs.replace(answer, stages=stages)

    def worst(more: int) -> float:
        answer = AnalyticProber().probe(knobs, workload, 20 * GIB)
        stages = tuple(
            msgspec.structs.replace(stage, peak_allocated_bytes=stage.peak_allocated_bytes + more)
            for stage in answer.stages
        )
        probe = RecordedProbe.of(knobs, workload, msgspec.structs.replace(answer, stages=stages), timed=True)
        found = reality_of(measurement_of(CARD, (probe,), (), cap_method=CapMethod.FRACTION), Allowing())
        return max((e.worst for e in found.errors if e.quantity is Quantity.ALLOCATED), key=abs)

    assert worst(int(inside * allowance)) == 0
    assert worst(int((1 + beyond) * allowance)) < 0
    assert worst(-int(beyond * GIB)) > 0


@pytest.mark.parametrize(
    ("factor", "share", "ends"), [(1.2, 1.1, (2, 2, 0)), (1.0, 1.1, (4, 0, 0)), (0.5, 0.7, (2, 0, 2))]
)
def test_verdicts_that_differ_are_counted_by_who_fitted(factor: float, share: float, ends: tuple[int, ...]) -> None:
    cap = int(AnalyticProber().need(Knobs(), Workload(batch=1, duration_s=600.0)) * share)
    verdicts = reality_of(recorded(factor, [cap]), AnalyticProber()).verdicts
    assert (verdicts.alike, verdicts.only_simulated_fits, verdicts.only_measured_fits) == ends


def test_what_cannot_be_simulated_is_counted_and_left_out() -> None:
    class Reluctant(AnalyticProber):
        def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
            if knobs.offload is Offload.NONE:
                raise NotMeasuredError("not in simulation")
            return super().probe(knobs, workload, cap_bytes)

    found = reality_of(recorded(1.0), Reluctant())
    assert found.unanswered == 4
    assert all(recorded(1.0).probes[p.probe].knobs.offload is not Offload.NONE for p in found.pairs[:1])


def test_compiled_probes_are_asked_as_a_simulated_card_runs_them() -> None:
    record = recorded(1.0)
    compiled = tuple(
        msgspec.structs.replace(p, knobs=msgspec.structs.replace(p.knobs, compile=True)) for p in record.probes
    )
    found = reality_of(measurement_of(CARD, compiled, (), cap_method=CapMethod.FRACTION), AnalyticProber())
    assert found.pairs == reality_of(record, AnalyticProber()).pairs


def test_the_command_answers_in_json_and_csv_and_refuses_a_simulated_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probers, "simulation_of", lambda *_: AnalyticProber())
    path, sheet = tmp_path / "card.json", tmp_path / "pairs.csv"
    path.write_text(pretty_json(recorded(1.01)), encoding="utf-8")
    assert run_click(cli, ["reality", str(path), "--csv", str(sheet), "--json"]) == Exit.OK
    document = json.loads(capsys.readouterr().out)
    assert document["caps"] == {"near": 4, "far": 0, "open": 0}
    with sheet.open(encoding="utf-8") as lines:
        assert len(list(csv.DictReader(lines))) == len(document["pairs"])
    path.write_text(pretty_json(recorded(1.5)), encoding="utf-8")
    assert run_click(cli, ["reality", str(path)]) == Exit.REGRESSED
    assert "worst under-estimates" in capsys.readouterr().out
    path.write_text(pretty_json(measured(sizes=(4,))), encoding="utf-8")
    assert run_click(cli, ["reality", str(path)]) == Exit.NOT_MEASURED
    assert run_click(cli, ["reality", str(path), "--csv", str(path)]) == Exit.USAGE


def test_an_end_that_may_be_nothing_leaves_the_error_open_above() -> None:
    """Only decode was told, and what it held says nothing about another cap."""
    [probe] = [p for p in recorded(1.0).probes if p.counts][:1]
    decode = msgspec.structs.replace(probe, stages=probe.stages[-1:])
    assert measured_cap([decode]) == (0, probe.stages[-1].peak_reserved_bytes)
    assert measured_cap([msgspec.structs.replace(probe, stages=())]) == (0, 0)
    pair = ComparedNumber(
        probe=0, stage="total", quantity=Quantity.SMALLEST_CAP, simulated=3, measured=4, measured_from=0
    )
    assert (pair.error, pair.near, pair.far) == (0.0, False, False)
    over = msgspec.structs.replace(pair, simulated=5)
    assert (over.error, over.near, over.far) == (0.25, False, True)


@pytest.mark.parametrize("kept", [(), (-1,)], ids=["without stages", "decode alone"])
def test_a_record_that_breaks_a_rule_is_refused_before_it_is_faced(
    kept: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probers, "simulation_of", lambda *_: AnalyticProber())
    cut = tuple(
        msgspec.structs.replace(p, stages=tuple(p.stages[n] for n in kept)) if p.counts else p
        for p in recorded(1.0).probes
    )
    path, sheet = tmp_path / "card.json", tmp_path / "pairs.csv"
    path.write_text(pretty_json(measurement_of(CARD, cut, (), cap_method=CapMethod.FRACTION)), encoding="utf-8")
    assert run_click(cli, ["reality", str(path), "--csv", str(sheet)]) == Exit.INVALID
    said = capsys.readouterr().err
    assert "V108" in said
    assert "probes[" in said
    assert f"calibrate validate {path}" in said
    assert not sheet.exists()


@pytest.mark.parametrize(("factor", "equal"), [(1.0, True), (1.5, False)])
def test_boundaries_are_equal_where_both_cards_end_each_pair_of_probes_alike(factor: float, equal: bool) -> None:
    record = measured(sizes=(4, 8))
    on_a_card = msgspec.structs.replace(record, card=CARD, cap_method=CapMethod.FRACTION)
    found = reality_of(on_a_card, Scaled(factor)).boundaries
    assert found.equal + found.different == len(record.certificates)
    assert (found.different == 0) is equal


def test_the_farthest_number_is_told_in_bytes() -> None:
    record = recorded(1.0)
    assert {errors.farthest_bytes for errors in reality_of(record, AnalyticProber()).errors} == {0}
    stage = next(e for e in reality_of(recorded(1.1), AnalyticProber()).errors if e.quantity is Quantity.ALLOCATED)
    assert stage.farthest_bytes == pytest.approx(0.1 / 1.1 * max_allocated(recorded(1.1), stage.stage), rel=1e-6, abs=2)


def max_allocated(record: Measurement, stage: str) -> int:
    """The largest peak of a stage among the probes that fit."""
    return max(s.peak_allocated_bytes for p in record.probes if p.counts for s in p.stages if s.name == stage)
