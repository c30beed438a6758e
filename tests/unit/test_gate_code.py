"""The code of a change is judged by the records at the base, never by those it brings along."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.errors import NotMeasuredError
from acestep.knobs import Knobs, Offload, Variant
from acestep.stage import Stage
from acestep.tiers import TierTable
from acestep.units import GIB, MIB
from calibrate.files import pretty_json
from calibrate.probes.base import MeasuredStage, ProbeResult
from calibrate.record.measurement import Measurement
from calibrate.table.merge import build_table
from calibrate.table.policy import Policy
from calibrate.workload import PROBE_STEPS, Workload
from ci.anchor import load_anchor, write_anchor
from ci.cells import certified_cells, judged_cells
from ci.findings import Finding, GateVerdict
from ci.judge import judge
from ci.judge_code import component_that_grew
from ci.judge_steps import STEPS
from ci.output import headline
from ci.promises import stored_promises
from tests.damage import sealed
from tests.damage_of_meaning import on_card
from tests.fakes import AnalyticProber, Hungry, measured
from tests.gate_house import TODAY, House, committed, good, judged, stopping


class Careless(AnalyticProber):
    """The card after a change that keeps the transformer on it, whatever was asked."""

    def resting_bytes(self, knobs: Knobs) -> int:
        kept = {Offload.CPU_DIT: Offload.CPU}.get(knobs.offload, knobs.offload)
        return super().resting_bytes(msgspec.structs.replace(knobs, offload=kept))


class Broken(AnalyticProber):
    """The card after a change that no longer runs."""

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        raise KeyError("transformer")


class Keeping(AnalyticProber):
    """The card after a change that keeps something of each step after the second."""

    def music_bytes(self, knobs: Knobs, workload: Workload) -> int:
        return super().music_bytes(knobs, workload) + (workload.steps - 2) * 10_000


def findings_of(prober: AnalyticProber, place: Path, rule: str) -> list[Finding]:
    return [finding for finding in judged(good(), place, prober=prober).findings if finding.id == rule]


def test_code_that_needs_as_much_as_before_is_green(tmp_path: Path) -> None:
    assert judged(good(), tmp_path, prober=Hungry(0)).verdict is GateVerdict.OK


def test_a_peak_within_the_tolerance_passes_and_one_above_it_does_not(tmp_path: Path) -> None:
    assert "G302" not in {f.id for f in judged(good(), tmp_path / "little", prober=Hungry(20 * MIB)).findings}
    found = findings_of(Hungry(400 * MIB), tmp_path / "much", "G302")
    assert {finding.tier for finding in found} >= {"tier6b", "unlimited"}
    for finding in found:
        assert finding.stage in {"think", "encode", "denoise", "decode"}
        assert finding.field.startswith(f"{finding.stage}.peak_allocated_bytes.")
        assert isinstance(finding.before, int)
        assert isinstance(finding.after, int)
        assert finding.after > finding.before * 1.02
        assert finding.component


@pytest.mark.parametrize("named", [("denoise", "denoize"), ("denoise", None), ("", "polish"), ("", "denoise")])
def test_stages_that_are_not_those_of_the_record_stop_a_change(named: tuple[str, str | None], tmp_path: Path) -> None:
    """A stage that is renamed, left out, added or told twice cannot be compared, whatever it takes."""
    before, after = named

    class Renaming(AnalyticProber):
        def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
            found = super().probe(knobs, workload, cap_bytes)
            kept = [stage for stage in found.stages if stage.name != before]
            moved = msgspec.structs.replace(found.stages[-2], name=after or "")
            return msgspec.structs.replace(found, stages=(*kept, moved) if after else tuple(kept))

    found = findings_of(Renaming(), tmp_path, "G203")
    assert found
    assert all(finding.field.startswith("stages.") for finding in found)


def test_what_later_steps_keep_is_seen_to_the_byte(tmp_path: Path) -> None:
    findings = judged(good(), tmp_path, prober=Keeping()).findings
    grown = [int(f.after) - int(f.before) for f in findings if f.stage == Stage.DENOISE and f.id == "G306"]  # type: ignore[arg-type]
    assert sorted(grown) == [10_000 * (steps - PROBE_STEPS) for steps in STEPS]


def test_a_certificate_that_no_longer_holds_says_what_is_needed_now(tmp_path: Path) -> None:
    found = findings_of(Careless(), tmp_path, "G301")
    assert "tier1" in {finding.tier for finding in found}
    for finding in found:
        assert finding.stage
        assert finding.field == f"smallest_cap_bytes.{finding.field.split('.', 1)[1]}"
        assert isinstance(finding.after, int)
        assert isinstance(finding.before, int)
        assert finding.after > finding.before


def test_code_that_cannot_be_probed_does_not_pass(tmp_path: Path) -> None:
    judgement = judged(good(), tmp_path, prober=Broken())
    assert judgement.verdict is GateVerdict.INCONCLUSIVE
    assert stopping(judgement) == {"G203"}


def test_peaks_recorded_again_with_the_code_that_raised_them_are_still_red(tmp_path: Path) -> None:
    hungry = Hungry(400 * MIB)
    judgement = judged(House(measured(hungry)), tmp_path, prober=hungry)
    assert judgement.verdict is GateVerdict.REGRESSED
    assert "G302" in stopping(judgement)


def test_a_raised_tolerance_is_red_and_does_not_help(tmp_path: Path) -> None:
    house = good()
    house.tolerance["peak_share"] = 0.5
    assert stopping(judged(house, tmp_path, prober=Hungry(400 * MIB))) >= {"G302", "G403"}


def anchored(house: House, share: float = 1.0) -> House:
    """The house with an anchor: a release at which each stage took this share of what it takes now."""
    table, policy = msgspec.convert(house.table, TierTable), msgspec.convert(house.policy, Policy)
    cells, _ = certified_cells(table, policy, [msgspec.convert(house.record, Measurement)])
    released = [msgspec.to_builtins(msgspec.structs.replace(cell, released=True)) for cell in cells]
    for peaks in (stage for cell in released for stage in cell["probe"]["stages"]):
        peaks["peak_allocated_bytes"] = int(peaks["peak_allocated_bytes"] * share)
    house.texts["anchor.json"] = json.dumps(released)
    return house


def test_small_steps_add_up_against_the_last_release(tmp_path: Path) -> None:
    """Each step is within the tolerance of the one before; one finding says where they have led."""
    release = anchored(good())
    for was, now, red in ((0, 30, False), (30, 60, True)):
        before = House(measured(Hungry(was * MIB)))
        before.texts = release.texts
        judgement = judged(before, tmp_path / str(now), base=before, prober=Hungry(now * MIB))
        assert "G302" not in stopping(judgement)
        crept = [finding for finding in judgement.findings if finding.id == "G304"]
        assert bool(crept) is red
        assert all("since the last release" in finding.message for finding in crept)


def test_what_grew_since_the_base_is_not_told_again_about_the_release(tmp_path: Path) -> None:
    judgement = judged(anchored(good()), tmp_path, base=anchored(good()), prober=Hungry(400 * MIB))
    assert "G302" in stopping(judgement)
    assert "G304" not in stopping(judgement)


def test_the_anchor_that_counts_is_the_bases(tmp_path: Path) -> None:
    judgement = judged(good(), tmp_path, base=anchored(good(), 0.9))
    assert stopping(judgement) == {"G304"}


def test_a_stricter_tolerance_holds_at_once(tmp_path: Path) -> None:
    house = good()
    house.tolerance["peak_share"] = 0.0
    assert "G302" in stopping(judged(house, tmp_path, prober=Hungry(20 * MIB)))


def test_every_tier_is_probed_at_its_limits_with_and_without_a_language_model(tmp_path: Path) -> None:
    promised = stored_promises(good().written(tmp_path))
    assert promised.policy is not None
    cells, missing = certified_cells(promised.table, promised.policy, promised.records)
    assert missing == []
    found = {(cell.tier, cell.state.split(".")[0]) for cell in cells}
    tiers = next(iter(promised.table.variants.values())).tiers
    assert found == {
        (tier.id, state)
        for tier in tiers
        for state in ("without_lm", "with_lm")
        if tier.max_batch.of(lm=state == "with_lm")
    }


def test_a_cell_without_its_probe_is_inconclusive(tmp_path: Path) -> None:
    base = good()
    base.policy["budget"]["headroom"]["share"] = 0.021
    judgement = judged(good(), tmp_path, base=base)
    assert "G203" in stopping(judgement)
    assert judgement.verdict is not GateVerdict.OK


def stage(**values: int) -> MeasuredStage:
    usual: dict[str, Any] = {"songs_per_pass": 1, "peak_reserved_bytes": 0, "allowance_bytes": 0}
    return MeasuredStage(name=Stage.DENOISE, seconds=0.0, **(usual | values))


@pytest.mark.parametrize(
    ("owners", "resident", "peak", "allowance", "component"),
    [
        ({"transformer": 900, "text_encoder": 300, "activations": 100}, 1200, 1300, 0, "text_encoder"),
        ({"transformer": 1300, "activations": 100}, 1300, 1400, 0, "transformer"),
        ({"transformer": 900, "activations": 480, "noise": 20}, 900, 1400, 0, "activations"),
        ({"cudnn": 300, "transformer": 1200, "activations": 100}, 1200, 1300, 0, "transformer"),
        ({"transformer": 900, "activations": 100}, 900, 1000, 500, "workspace"),
        ({"transformer": 900, "activations": 90}, 900, 990, 0, ""),
    ],
)
def test_the_component_that_grew_is_told_from_what_a_record_keeps(
    owners: dict[str, int], resident: int, peak: int, allowance: int, component: str
) -> None:
    before = stage(peak_allocated_bytes=1000, resident_bytes=900)
    after = stage(peak_allocated_bytes=peak, resident_bytes=resident, allowance_bytes=allowance)
    assert component_that_grew(before, after, owners) == component


def test_only_the_code_of_the_variants_that_are_asked_for_is_simulated_and_the_verdict_names_the_others(
    tmp_path: Path,
) -> None:
    hungry = Hungry(400 * MIB)
    asked = judged(good(), tmp_path / "asked", prober=hungry, variants=[Variant.TURBO])
    assert asked.not_simulated == ()
    whole = judged(good(), tmp_path / "whole", prober=hungry)
    assert (asked.findings, asked.compared) == (whole.findings, whole.compared)
    other = judged(good(), tmp_path / "other", prober=hungry, variants=[Variant.XL_TURBO])
    assert other.not_simulated == (Variant.TURBO,)
    assert "Not simulated: turbo." in headline(other)
    assert (other.verdict, other.compared.cells) == (GateVerdict.INCONCLUSIVE, 0)


def test_the_table_of_a_variant_whose_code_is_not_simulated_is_compared_all_the_same(tmp_path: Path) -> None:
    worse = good()
    worse.table["variants"]["turbo"]["tiers"][-1]["lm_models"] = []
    whole, part = (
        judged(worse, tmp_path / name, variants=variants)
        for name, variants in (("all", ()), ("xl", [Variant.XL_TURBO]))
    )
    assert stopping(part) - {"G202"} == stopping(whole) - {"G202"} != set()


def run(checkout: Path, base: str | Path, head: Path | None = None, **options: Any) -> GateVerdict:
    quiet: dict[str, Any] = {"progress": lambda _: None, "prober": AnalyticProber(), "table_only": False}
    return judge(checkout, base, head, TODAY, **(quiet | options)).verdict


def test_a_base_can_be_a_git_reference_and_its_records_count_not_those_of_the_tree(tmp_path: Path) -> None:
    table = good().written(tmp_path)
    committed(tmp_path)
    assert run(tmp_path, "HEAD") is GateVerdict.OK
    hungry = Hungry(400 * MIB)
    worse = House(measured(hungry))
    for name, document in (("generated_tiers.json", worse.table), ("measurements/fake.json", worse.record)):
        (table.parent / name).write_text(json.dumps(document), encoding="utf-8")
    assert run(tmp_path, "HEAD", prober=hungry) is GateVerdict.REGRESSED


@pytest.mark.parametrize("base", ["no-such-branch", "-x", "--output=file", "HEAD", ""])
def test_a_base_that_is_not_there_is_inconclusive(base: str, tmp_path: Path) -> None:
    good().written(tmp_path)
    assert run(tmp_path, base) is GateVerdict.INCONCLUSIVE


def test_a_commit_without_a_table_is_inconclusive(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("nothing yet", encoding="utf-8")
    committed(tmp_path)
    good().written(tmp_path)
    assert run(tmp_path, "HEAD") is GateVerdict.INCONCLUSIVE


@pytest.mark.parametrize("spoil", [lambda h: h.texts.update({"generated_tiers.json": "{}"}), lambda h: h.seal()])
def test_a_base_that_cannot_be_read_is_inconclusive_and_not_the_fault_of_the_change(
    spoil: Callable[[House], object], tmp_path: Path
) -> None:
    base = good()
    base.record["probes"][0]["stages"] = []
    base.texts["measurements/fake.json"] = json.dumps(base.record)
    spoil(base)
    assert judged(good(), tmp_path, base=base).verdict is GateVerdict.INCONCLUSIVE


def test_a_lone_table_can_be_compared_but_says_nothing_about_code(tmp_path: Path) -> None:
    head = good().written(tmp_path / "head")
    lone = tmp_path / "lone.json"
    lone.write_bytes(head.read_bytes())
    assert run(tmp_path / "head", lone, table_only=True) is GateVerdict.OK
    assert run(tmp_path / "head", lone) is GateVerdict.INCONCLUSIVE
    assert run(tmp_path / "head", head, head=lone, table_only=True) is GateVerdict.OK


def test_the_guard_may_predict_otherwise_but_not_with_nothing(tmp_path: Path) -> None:
    base, other, none = good(), good(), good()
    for house, model in ((base, {"none.denoise": 1.5}), (other, {"int8.encode": 2.5}), (none, {})):
        house.table["variants"]["turbo"]["memory_model"] = model
    assert stopping(judged(other, tmp_path / "other", base=base, table_only=True)) == set()
    assert stopping(judged(none, tmp_path / "none", base=base, table_only=True)) == {"G511"}


def with_a_card(house: House, *, beside: bool) -> House:
    """The house with its record measured on a real card, `beside` the simulated one or instead of it."""
    document = json.loads(json.dumps(house.record))
    on_card("NVIDIA RTX PRO 6000 Blackwell", "12.0", 95.0)(document)
    card = json.loads(sealed(document))
    records = [msgspec.convert(record, Measurement) for record in ([house.record, card] if beside else [card])]
    house.table = json.loads(pretty_json(build_table(records, msgspec.convert(house.policy, Policy))))
    if beside:
        house.texts["measurements/card.json"] = json.dumps(card)
    else:
        house.record = card
    return house


def test_an_anchor_holds_the_cells_that_the_gate_judges_also_after_a_card_has_lowered_limits(tmp_path: Path) -> None:
    house = good()
    simulated, policy = msgspec.convert(house.record, Measurement), msgspec.convert(house.policy, Policy)
    document = json.loads(pretty_json(measured(Hungry(3 * GIB))))
    on_card("NVIDIA RTX PRO 6000 Blackwell", "12.0", 95.0)(document)
    card = sealed(document)
    records = [simulated, msgspec.json.decode(card, type=Measurement)]
    table = build_table(records, policy)
    house.table, house.texts["measurements/card.json"] = json.loads(pretty_json(table)), card.decode()
    folder = house.written(tmp_path).parent
    cells, missing = judged_cells(table, policy, records)
    lowered, _ = certified_cells(table, policy, records)
    assert not missing
    assert len(lowered) < len(cells)
    assert write_anchor(folder) == len(cells)
    assert load_anchor(folder) == tuple(msgspec.structs.replace(cell, released=True) for cell in cells)


def test_an_anchor_without_a_cell_is_not_written(tmp_path: Path) -> None:
    folder = with_a_card(good(), beside=False).written(tmp_path).parent
    with pytest.raises(NotMeasuredError, match="tier1"):
        write_anchor(folder)
    assert not (folder / "anchor.json").exists()


def test_what_a_card_measured_does_not_switch_the_simulation_off(tmp_path: Path) -> None:
    house = with_a_card(good(), beside=True)
    assert house.tiers[0]["evidence"]["frontier"]["kind"] == "measured"
    assert judged(house, tmp_path / "same", base=house).compared.cells > 8
    assert "G302" in stopping(judged(house, tmp_path / "more", base=house, prober=Hungry(400 * MIB)))


def test_cells_that_are_no_longer_simulated_are_red(tmp_path: Path) -> None:
    judgement = judged(with_a_card(good(), beside=False), tmp_path)
    lost = [finding for finding in judgement.findings if finding.id == "G305"]
    assert {(finding.tier, finding.field) for finding in lost} >= {("tier1", "without_lm"), ("tier5", "with_lm.pt")}
