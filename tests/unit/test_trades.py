"""A larger card gets no less of anything without a sentence that says what it buys, and lists every model that fits."""

from itertools import pairwise

import msgspec
import pytest

from acestep.budgets import System
from acestep.hardware.card import simulated_card
from acestep.knobs import KNOBS, LM_MODELS, Backend, Knobs, Offload, Variant
from acestep.limits.plan import Overrides, resolve
from acestep.tiers import BATCHES, Tier, TierTable, lm_rank, load_tiers
from acestep.units import GIB, MIB
from calibrate.table.choice import thinking
from calibrate.table.knobs import ladder
from calibrate.table.merge import build_table
from calibrate.table.policy import budget_bytes, load_policy
from calibrate.table.trades import trades
from calibrate.workload import Workload
from tests.fakes import AnalyticProber, Hungry, measured

POLICY = load_policy()
TABLES = {
    "stored": load_tiers(),
    "the formula": build_table([measured()], POLICY),
    "half a GiB more": build_table([measured(Hungry(512 * MIB))], POLICY),
    "a GiB more": build_table([measured(Hungry(GIB))], POLICY),
}


def gives_less(tier: Tier, below: Tier) -> bool:
    """Whether a tier gives less than the one below in anything that users see."""
    offload = KNOBS["offload"].rank
    shorter = any(
        tier.frontier.longest(batch, lm=lm) < below.frontier.longest(batch, lm=lm)
        for batch in BATCHES
        for lm in (False, True)
    )
    return (
        shorter
        or offload(tier.offload) > offload(below.offload)
        or (tier.quantization is not None and below.quantization is None)
        or lm_rank(tier.recommended_lm) < lm_rank(below.recommended_lm)
        or not set(below.lm_models) <= set(tier.lm_models)
    )


@pytest.mark.parametrize("system", System)
@pytest.mark.parametrize("name", TABLES)
def test_every_tier_that_gives_less_has_a_sentence_that_says_what_it_buys(name: str, system: System) -> None:
    for table in TABLES[name].variants.values():
        tiers = table.on(system).tiers
        told = {trade.tier: trade.sentence for trade in trades(tiers, system)}
        assert set(told) == {tier.id for below, tier in pairwise(tiers) if gives_less(tier, below)}
        assert all("this buys" in sentence and "nothing" not in sentence for sentence in told.values())
        kept = {trade.sentence for trade in table.trades}
        assert set(told.values()) <= kept


def were_asked(table: TierTable) -> bool:
    """Whether the records of a table were asked about models that need other knobs, as older ones were not."""
    return any(tier.lm_needs for variant in table.variants.values() for tier in variant.tiers)


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if were_asked(table)])
@pytest.mark.parametrize("system", System)
def test_no_larger_card_lists_fewer_language_models(name: str, system: System) -> None:
    for table in TABLES[name].variants.values():
        for below, tier in pairwise(table.on(system).tiers):
            assert set(below.lm_models) <= set(tier.lm_models)


def needed(prober: AnalyticProber, rung: Knobs, model: str, backend: Backend, weights: object) -> int:
    return prober.need(
        thinking(rung, model, weights, backend),  # type: ignore[arg-type]
        Workload(batch=1, duration_s=600, with_lm=True),
    )


def test_a_tier_lists_every_model_that_fits_on_some_later_rung_and_no_other() -> None:
    prober = AnalyticProber()
    for tier, decided in zip(TABLES["the formula"].variants[Variant.TURBO].tiers, POLICY.tiers, strict=True):
        cap = budget_bytes(tier.certified_gib, POLICY)
        rungs = [rung for rung in ladder(POLICY, Variant.TURBO) if rung.quantization is tier.quantization]
        later = rungs[[rung.offload for rung in rungs].index(tier.offload) :]
        fitting = {
            model
            for model in LM_MODELS
            for rung in later
            for weights in decided.lm_quantizations
            if tier.max_duration_s.without_lm == 600 and needed(prober, rung, model, Backend.PT, weights) <= cap
        }
        assert set(tier.lm_models) == fitting
        for model, needs in tier.lm_needs.items():
            rung = Knobs(offload=needs.offload, quantization=needs.quantization)
            for backend in needs.backends:
                assert needed(prober, rung, model, backend, needs.lm_quantization) <= cap
            assert model != tier.recommended_lm


def roomless(table: TierTable) -> list[tuple[Tier, str]]:
    return [(tier, model) for tier in table.variants[Variant.TURBO].tiers for model in tier.lm_needs]


def test_a_wish_for_a_model_that_needs_other_knobs_is_granted_with_them_and_says_so() -> None:
    table = TABLES["the formula"]
    assert roomless(table)
    for tier, model in roomless(table):
        needs = tier.lm_needs[model]
        plan = resolve(simulated_card(tier.certified_gib), table, Overrides(lm=model))
        assert (plan.lm, plan.offload, plan.quantization) == (model, needs.offload, needs.quantization)
        assert plan.backend in needs.backends
        assert plan.frontier.with_lm == needs.with_lm
        assert any(sentence.startswith(f"{model} fits this card with") for sentence in plan.warnings)
        assert set(plan.lm_models) == set(tier.lm_models)
        held = resolve(simulated_card(tier.certified_gib), table, Overrides(lm=model, offload=tier.offload))
        assert held.offload == needs.offload, "less offload than the model needs is refused"
        usual = resolve(simulated_card(tier.certified_gib), table)
        assert (usual.lm, usual.offload) == (tier.recommended_lm, tier.offload)


def test_what_a_sentence_says_is_what_the_two_tiers_have() -> None:
    small, large = TABLES["the formula"].variants[Variant.TURBO].tiers[-2:]
    lowered = msgspec.structs.replace(
        large, lm_models=("0.6B",), recommended_lm="0.6B", lm_needs={}, lm_songs_per_pass={}, offload=Offload.NONE
    )
    below = msgspec.structs.replace(small, offload=Offload.CPU)
    (trade,) = trades([below, lowered], System.LINUX)
    assert "0.6B recommended" in trade.sentence
    assert "this buys a card that keeps every model" in trade.sentence
    (bare,) = trades([msgspec.structs.replace(small, offload=Offload.NONE), lowered], System.LINUX)
    assert "this buys nothing: the record" in bare.sentence
