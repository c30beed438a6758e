"""The gate runs the code of a change with every language model that a tier lists, not only the recommended one."""

from pathlib import Path

import msgspec
import pytest

from acestep.knobs import Knobs, Offload, Variant
from acestep.tiers import TierTable
from acestep.units import MIB
from calibrate.workload import Workload
from tests.fakes import AnalyticProber
from tests.gate_house import good, judged


class HungryFor(AnalyticProber):
    """The card after a change that makes runs with one language model and offload take more."""

    def __init__(self, lm: str, offload: Offload) -> None:
        super().__init__()
        self.hungry_for = lm, offload

    def need(self, knobs: Knobs, workload: Workload) -> int:
        return super().need(knobs, workload) + 400 * MIB * ((knobs.lm, knobs.offload) == self.hungry_for)


@pytest.mark.parametrize("with_needs", [False, True])
def test_every_language_model_that_a_tier_lists_is_judged(with_needs: bool, tmp_path: Path) -> None:
    house = good()
    tiers = msgspec.convert(house.table, TierTable).variants[Variant.TURBO].tiers
    listed = [
        (tier, model)
        for tier in tiers
        for model in tier.lm_models
        if model != tier.recommended_lm and (model in tier.lm_needs) is with_needs
    ]
    assert listed
    for number, (tier, model) in enumerate(listed):
        prober = HungryFor(model, tier.thinking_with(model).offload)
        found = judged(good(), tmp_path / str(number), prober=prober).findings
        assert any(f.tier == tier.id and f"with_lm.{model}." in f.field and f.level == "error" for f in found)
