"""Smaller weights for the transformer's linear layers, by torchao."""

from torch import nn

from acestep.errors import RunFailedError
from acestep.knobs import Quantization


def quantize(transformer: nn.Module, quantization: Quantization) -> None:
    """Replace the weight of every linear layer in place.

    Raises `RunFailedError` when a layer was left as it was: a silent no-op costs the memory it promised to save.
    """
    from torchao.quantization import (
        Float8WeightOnlyConfig,
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

    configs = {
        Quantization.INT8: Int8WeightOnlyConfig,
        Quantization.FP8: Float8WeightOnlyConfig,
        Quantization.W8A8: Int8DynamicActivationInt8WeightConfig,
    }
    linears = [module for module in transformer.modules() if isinstance(module, nn.Linear)]
    before = [type(linear.weight.data) for linear in linears]
    # Otherwise torchao makes Inductor tune every graph of the process, which delays the first song.
    quantize_(transformer, configs[quantization](set_inductor_config=False))
    replaced = sum(type(linear.weight.data) is not kind for linear, kind in zip(linears, before, strict=True))
    if not linears or replaced != len(linears):
        raise RunFailedError(
            f"{quantization} replaced {replaced} of {len(linears)} linear layers; expected all of them."
            " Choose `--quantization none` or install the torchao this release asks for."
        )
