"""The pipeline with the VRAM guard of the table in force."""

from collections.abc import Mapping

from acestep.checkpoints.components import Components
from acestep.devices.base import Device
from acestep.engine.pipeline import Pipeline
from acestep.limits.plan import Plan
from acestep.lm.stage import Thinker
from acestep.tiers import tiers_here


def memory_model_of(components: Components, plan: Plan) -> Mapping[str, float]:
    """Return the memory model of the table in force; empty for tiny weights, and where the table has none."""
    table = None if components.is_noise == "tiny" else tiers_here().variants.get(plan.variant)
    return {} if table is None else table.memory_model


def guarded_pipeline(components: Components, plan: Plan, device: Device, thinker: Thinker, vae_chunk: int) -> Pipeline:
    """A pipeline whose VRAM guard predicts from the table in force."""
    return Pipeline(
        components,
        plan.knobs,
        device,
        thinker=thinker,
        memory_model=memory_model_of(components, plan),
        vae_chunk=vae_chunk,
    )
