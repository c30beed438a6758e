"""Counts the operations of a song on tensors without values: this needs no card and is the same everywhere."""

import msgspec
import torch

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
from calibrate.probes.simulated.work_counter import NOTHING, work_between


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
    kernels, book = CudaKernels(SIMULATED_CAPABILITY), LiveBook()
    ledger = Ledger(book, kernels)
    device = SimulatedDevice(ledger, book, dtype=torch.bfloat16, grouped_attention=kernels.has_flash)
    with kernels, ledger:
        pipeline = Pipeline(components, Knobs(variant=components.variant), device)
        pipeline.generate(request, strict=True)
        pipeline.close()
    work = work_between(NOTHING, kernels.work.counts)
    return work.products.flops + work.convolutions.flops + work.attention.flops
