"""Counts the operations of a song on tensors without values: this needs no card and is the same everywhere."""

from typing import Any

import msgspec
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from acestep.checkpoints.build import build
from acestep.checkpoints.catalog import SIZES
from acestep.checkpoints.components import Components
from acestep.dit.sampler import steps_for
from acestep.engine.pipeline import Pipeline, prepare
from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.knobs import Knobs, Variant
from acestep.request import Request
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.host import rest_on_host
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.live import LiveBook


def attention_flops(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Return the operations of attention on [batch, heads, rows, width].

    Every query head has scores, also with shared keys.
    """
    batch, heads, rows, width = query.shape
    return 2 * batch * heads * rows * key.shape[-2] * (width + value.shape[-1])


class CountingKernels(CudaKernels):
    """Attention of a card with fused kernels; its operations are added to `flops`.

    PyTorch's own formulas differ by release: that of 2.11 refuses keys with fewer heads than queries.
    """

    def __init__(self) -> None:
        super().__init__(SIMULATED_CAPABILITY)
        self.flops = 0

    def attention(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        """Return the empty result in the layout of the fused kernels."""
        self.flops += attention_flops(query, key, value)
        batch, heads, rows, _ = query.shape
        return query.new_empty(batch, rows, heads, value.shape[-1]).transpose(1, 2)


def weightless(model: str, variant: Variant) -> Components:
    """Return parts of the right sizes that take no memory."""
    components = build(SIZES[model], variant, dtype=torch.bfloat16, materialise="meta")
    prepare(components, Knobs(variant=variant))
    rest_on_host(components.modules().values())
    return components


def song_flops(components: Components, request: Request) -> int:
    """Return the operations of all matrix products, convolutions and attentions of a request, its parts resident.

    Every step is the same work, so two runs give the number for any number of steps.
    """
    one, two = (_counted(components, msgspec.structs.replace(request, steps=steps)) for steps in (1, 2))
    return one + (steps_for(components.variant, request.steps) - 1) * (two - one)


def _counted(components: Components, request: Request) -> int:
    kernels, book = CountingKernels(), LiveBook()
    ledger = Ledger(book, kernels)
    device = SimulatedDevice(ledger, book, dtype=torch.bfloat16, grouped_attention=kernels.has_flash)
    # The counter is below the ledger, which must first intercept the calls that a card would run differently.
    with kernels, FlopCounterMode(display=False) as counter, ledger:
        pipeline = Pipeline(components, Knobs(variant=components.variant), device)
        pipeline.generate(request, strict=True)
        pipeline.close()
    return int(counter.get_total_flops()) + kernels.flops
