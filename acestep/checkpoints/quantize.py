"""Smaller weights for the transformer's linear layers, by torchao."""

from collections.abc import Hashable

from torch import nn

from acestep.errors import RunFailedError
from acestep.knobs import WEIGHT_FORMATS, Quantization


def quantize(transformer: nn.Module, quantization: Quantization) -> None:
    """Replace the weight of every linear layer in place.

    Raises `RunFailedError` when a layer was left as it was: a silent no-op costs the memory it promised to save.
    """
    from torchao import quantization as torchao

    config = getattr(torchao, WEIGHT_FORMATS[quantization].torchao)
    linears = [module for module in transformer.modules() if isinstance(module, nn.Linear)]
    before = [type(linear.weight.data) for linear in linears]
    kinds = [_kind(linear) for linear in linears]
    first = dict(zip(reversed(kinds), reversed(linears), strict=True))
    chosen = set(first.values())
    # Otherwise torchao has Inductor tune every graph of the process, which the first song would wait for.
    config = config(set_inductor_config=False)
    torchao.quantize_(transformer, config, lambda module, _: module in chosen)
    for linear, kind in zip(linears, kinds, strict=True):
        if linear is not first[kind]:
            linear.weight = nn.Parameter(first[kind].weight.data.clone(), requires_grad=False)
    replaced = sum(type(linear.weight.data) is not kind for linear, kind in zip(linears, before, strict=True))
    if not linears or replaced != len(linears):
        raise RunFailedError(
            f"{quantization} replaced {replaced} of {len(linears)} linear layers; expected all of them."
            " Choose `--quantization none` or install the torchao this release asks for."
        )


def _kind(linear: nn.Linear) -> Hashable:
    """What is the same for layers whose quantised weights are alike: one without values differs only by its shape.

    torchao takes 10 ms for each of hundreds of layers, and simulations quantise many models.
    """
    weight = linear.weight
    return (weight.shape, weight.stride(), weight.dtype) if weight.is_meta else id(linear)
