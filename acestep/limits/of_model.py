"""The wishes for a run with a model."""

import msgspec

from acestep.checkpoints.catalog import SIZES, checkpoints_dir
from acestep.checkpoints.locate import variant_at
from acestep.limits.plan import Overrides


def of_model(model: str, overrides: Overrides) -> Overrides:
    """Return overrides for the variant of a model, unless it is a model that imitates any variant."""
    if model in SIZES:
        return overrides
    return msgspec.structs.replace(overrides, variant=variant_at(model, checkpoints_dir()))
