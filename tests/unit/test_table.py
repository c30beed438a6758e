"""Records + policy -> table: nothing is promised that no probe has shown, and the same input gives the same bytes."""

import itertools
import json
from pathlib import Path

import msgspec
import pytest

from acestep.errors import NotMeasuredError
from acestep.knobs import LM_MODELS, Backend, Knobs, Offload, Quantization, Variant
from acestep.tiers import BATCHES, SizeBoundary, TierTable, load_tiers
from acestep.units import GIB, MIB
from calibrate.files import pretty_json
from calibrate.probes.base import CapMethod
from calibrate.record.measurement import Measurement, RecordedCardKind, load_measurement
from calibrate.table.choice import thinking
from calibrate.table.knobs import Config, configured
from calibrate.table.merge import build_table, disagreements
from calibrate.table.policy import budget_bytes, load_policy
from calibrate.workload import Workload
from tests.fakes import AnalyticProber, Hungry, measured

POLICY = load_policy()
RECORD = measured()
TABLE = build_table([RECORD], POLICY)
TIERS = TABLE.variants[Variant.TURBO].tiers
PUBLISHED = json.loads((Path(__file__).parents[2] / "tiers" / "published_tiers.json").read_text(encoding="utf-8"))


def on_a_card(record: Measurement, name: str) -> Measurement:
    card = msgspec.structs.replace(record.card, kind=RecordedCardKind.CUDA, name=name)
    return msgspec.structs.replace(record, card=card, cap_method=CapMethod.FRACTION).sealed()


def test_every_promise_is_a_probe_that_fits_at_the_budget_of_the_certified_size() -> None:
    fitting = {(p.knobs, p.cap_bytes, p.workload.batch, p.workload.duration_s) for p in RECORD.probes if p.counts}
    for tier in TIERS:
        for batch, seconds in tier.frontier.without_lm.items():
            knobs = Knobs(offload=tier.offload, quantization=tier.quantization)
            asked = (knobs, budget_bytes(tier.certified_gib, POLICY), int(batch), float(seconds))
            assert seconds == 0 or asked in fitting


def test_the_headline_is_the_largest_batch_at_the_longest_song() -> None:
    for tier in TIERS:
        longest = tier.max_duration_s.without_lm
        assert longest == tier.frontier.without_lm["1"]
        reaching = [batch for batch in BATCHES if tier.frontier.without_lm[str(batch)] == longest]
        assert tier.max_batch.without_lm == max(reaching)


def test_larger_cards_are_never_promised_less_nor_given_more_aggressive_knobs() -> None:
    ladder = [(rung.offload, rung.quantization) for rung in POLICY.preference]
    for small, large in itertools.pairwise(TIERS):
        assert ladder.index((large.offload, large.quantization)) <= ladder.index((small.offload, small.quantization))
        assert small.max_duration_s.without_lm <= large.max_duration_s.without_lm


def test_int8_and_offload_appear_only_where_a_song_would_not_fit_without() -> None:
    by_id = {tier.id: tier for tier in TIERS}
    assert (by_id["unlimited"].offload, by_id["unlimited"].quantization) == (Offload.NONE, None)
    assert by_id["tier1"].quantization is Quantization.INT8  # 3,000 MiB and 600 s leave too little of 3.22 GiB
    assert by_id["tier2"].quantization is None


def test_every_promise_with_a_language_model_is_a_probe_that_fits_on_every_backend() -> None:
    fitting = {(p.knobs, p.cap_bytes, p.workload.batch, p.workload.duration_s) for p in RECORD.probes if p.counts}
    for tier in TIERS:
        rung = Knobs(offload=tier.offload, quantization=tier.quantization)
        backends = set(tier.backends_allowed) - {Backend.MLX}
        entries = [(tier.recommended_lm, *entry) for entry in tier.frontier.with_lm.items()]
        entries += [(model, "1", tier.max_duration_s.with_lm) for model in tier.own_lm_models]
        for (model, batch, seconds), backend in itertools.product(entries, backends):
            knobs = msgspec.structs.replace(rung, lm=model, lm_quantization=tier.lm_quantization, backend=backend)
            asked = (knobs, budget_bytes(tier.certified_gib, POLICY), int(batch), float(seconds))
            assert seconds == 0 or asked in fitting


def test_every_tier_offers_its_least_language_model_and_the_largest_that_fits_its_knobs() -> None:
    for tier, decided in zip(TIERS, POLICY.tiers, strict=True):
        assert tier.recommended_lm == tier.own_lm_models[-1] >= decided.least_lm
        assert set(tier.lm_songs_per_pass) == set(tier.lm_models)
        rung = Knobs(offload=tier.offload, quantization=tier.quantization)
        longest = Workload(batch=1, duration_s=600, with_lm=True)
        for model, quantization in itertools.product(LM_MODELS, decided.lm_quantizations):
            larger = LM_MODELS.index(model) > LM_MODELS.index(tier.recommended_lm)
            need = AnalyticProber().need(thinking(rung, model, quantization, Backend.PT), longest)
            assert not (larger and need <= budget_bytes(decided.certified_gib, POLICY))


def test_an_int8_language_model_is_offered_only_where_the_published_table_has_none() -> None:
    for tier, published in zip(TIERS, PUBLISHED["tiers"], strict=True):
        assert tier.lm_quantization is None or not published["lm_models"]


def test_what_vllm_takes_is_said_to_be_estimated_and_the_rest_is_not() -> None:
    for tier in TIERS:
        kind = "estimated" if Backend.VLLM in tier.backends_allowed else "simulated"
        assert tier.evidence["lm_models"].kind == tier.evidence["frontier.with_lm"].kind == kind
        assert tier.evidence["frontier"].kind == "simulated"


def test_language_models_have_a_boundary_each() -> None:
    for model, boundary in TABLE.variants[Variant.TURBO].boundaries.lm.items():
        offering = [tier.certified_gib for tier in TIERS if model in tier.own_lm_models]
        assert boundary.fits_gib in offering
        assert boundary.fails_gib < boundary.fits_gib
    assert set(TABLE.variants[Variant.TURBO].boundaries.lm) == set(LM_MODELS)


def test_every_found_field_names_its_record_and_every_decided_one_the_policy() -> None:
    for tier in TIERS:
        for field in ("max_duration_s", "max_batch", "offload", "quantization", "frontier"):
            assert (tier.evidence[field].kind, tier.evidence[field].record) == ("simulated", RECORD.digest)
        for field in ("vram_gib", "certified_gib", "backend", "backends_allowed", "compile", "init_lm"):
            assert (tier.evidence[field].kind, tier.evidence[field].record) == ("policy", POLICY.digest)
    assert TABLE.generated_from.records == (RECORD.digest,)
    assert TABLE.generated_from.policy == POLICY.digest


def test_boundaries_are_swept_at_each_tiers_own_limits() -> None:
    stored = TABLE.variants[Variant.TURBO].boundaries
    for boundary, config in ((stored.without_int8, Config.NO_QUANT), (stored.without_offload, Config.NO_OFFLOAD)):
        fitting = []
        for tier in TIERS:
            own = Knobs(offload=tier.offload, quantization=tier.quantization)
            limits = Workload(batch=tier.max_batch.without_lm, duration_s=tier.max_duration_s.without_lm)
            need = AnalyticProber().need(configured(own, config), limits)
            if need <= budget_bytes(tier.certified_gib, POLICY):
                fitting.append(tier)
        assert TIERS[-len(fitting) :] == tuple(fitting), "the formula is monotone, so the tiers that fit are the last"
        below = TIERS[len(TIERS) - len(fitting) - 1]
        assert boundary == SizeBoundary(
            fits_gib=fitting[0].certified_gib, fails_gib=below.certified_gib, tier=fitting[0].id
        )


def test_the_table_is_the_same_bytes_whatever_the_order_of_the_records() -> None:
    records = [RECORD, on_a_card(RECORD, "a card"), measured(Hungry(1024 * MIB))]
    built = {pretty_json(build_table(order, POLICY)) for order in (records, records[::-1])}
    assert len(built) == 1


def test_the_table_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "generated_tiers.json"
    path.write_text(pretty_json(TABLE), encoding="utf-8")
    assert load_tiers(path) == TABLE


def test_a_measured_record_beats_a_simulated_one_and_the_more_careful_card_decides() -> None:
    real, careful = on_a_card(RECORD, "large"), on_a_card(measured(Hungry(1024 * MIB)), "small")
    kinds = {t.evidence["frontier"].kind for t in build_table([RECORD, real], POLICY).variants[Variant.TURBO].tiers}
    assert kinds == {"measured"}
    both, alone = build_table([real, careful], POLICY), build_table([careful], POLICY)
    assert frontiers(both) == frontiers(alone)


def test_a_record_of_a_virtual_card_beats_a_simulated_one_and_gives_way_to_a_measured_one() -> None:
    real = on_a_card(RECORD, "a card")
    card = msgspec.structs.replace(real.card, kind=RecordedCardKind.VIRTUAL)
    virtual = msgspec.structs.replace(real, card=card).sealed()

    def kinds(*records: Measurement) -> set[str]:
        tiers = build_table(records, POLICY).variants[Variant.TURBO].tiers
        return {tier.evidence["frontier"].kind for tier in tiers}

    assert kinds(RECORD, virtual) == kinds(virtual, RECORD) == {"virtual"}
    assert kinds(RECORD, virtual, real) == kinds(real, virtual) == {"measured"}


def test_records_of_one_card_that_disagree_are_told_and_those_of_two_cards_may_differ() -> None:
    real, careful = on_a_card(RECORD, "a card"), on_a_card(measured(Hungry(1024 * MIB)), "a card")
    told = disagreements([real, careful], POLICY)
    assert told == disagreements([careful, real], POLICY)
    assert any("tier1 of turbo" in sentence for sentence in told)
    for sentence in told:
        assert sentence.index(careful.digest) < sentence.index(real.digest)
    assert disagreements([real, on_a_card(measured(Hungry(1024 * MIB)), "another card"), RECORD], POLICY) == ()
    again = msgspec.structs.replace(real, code_version="0.0.1+tree.0123456789abcdef").sealed()
    assert disagreements([real, again], POLICY) == ()


def frontiers(table: TierTable) -> list[dict[str, int]]:
    return [tier.frontier.without_lm for tier in table.variants[Variant.TURBO].tiers]


def test_records_of_single_tiers_add_up() -> None:
    parts = [measured(sizes=(size,)) for size in POLICY.certified_sizes_gib]
    assert frontiers(build_table(parts, POLICY)) == frontiers(TABLE)


def test_a_tier_that_no_record_covers_is_named() -> None:
    with pytest.raises(NotMeasuredError, match=r"tier4 .*--tiers 8"):
        build_table([measured(sizes=(4, 5, 7))], POLICY)
    with pytest.raises(NotMeasuredError, match="turbo"):
        build_table([], POLICY)


def test_a_record_made_under_another_budget_covers_nothing(tmp_path: Path) -> None:
    document = json.loads(msgspec.json.encode(POLICY))
    document["budget"]["headroom"]["share"] = 0.03
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(document))
    with pytest.raises(NotMeasuredError, match="tier1"):
        build_table([RECORD], load_policy(path))


def test_a_tier_where_nothing_fits_promises_nothing_and_lies_below_every_boundary() -> None:
    class Enormous(AnalyticProber):
        def need(self, *asked: object) -> int:
            return super().need(*asked) + 16 * GIB  # type: ignore[arg-type]

    table = build_table([measured(Enormous())], POLICY).variants[Variant.TURBO]
    first = table.tiers[0]
    assert (first.max_duration_s.without_lm, first.max_batch.without_lm) == (0, 0)
    assert (first.offload, first.quantization) == (POLICY.preference[-1].offload, POLICY.preference[-1].quantization)
    assert table.boundaries.without_int8.fails_gib >= first.certified_gib


def test_the_stored_table_is_what_the_stored_records_and_policy_give() -> None:
    folder = Path(__file__).parents[2] / "tiers"
    records = [load_measurement(path) for path in sorted((folder / "measurements").glob("*.json"))]
    built = pretty_json(build_table(records, load_policy(folder / "policy.json")))
    stored = load_tiers(folder / "generated_tiers.json")
    assert built == pretty_json(stored.without_times()), "run `python -m calibrate merge`"
    assert pretty_json(stored) == (folder / "generated_tiers.json").read_text(encoding="utf-8")
