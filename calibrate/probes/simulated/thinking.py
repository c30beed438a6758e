"""The language model in simulation: jobs written on meta tensors, with tokens that no logits decide."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from acestep.knobs import Offload, Quantization
from acestep.memory.placement import Placement
from acestep.models.lm import LanguageModel, build_lm, quantize_lm
from acestep.planner.backends.pt import PtBackend
from acestep.planner.forward import DecoderBlock
from acestep.planner.job import Job
from acestep.planner.sampling import Draft, Spans
from calibrate.probes.simulated.book import TraceBook
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.host import rest_on_host
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.memo import Memo, Regions, Tape
from calibrate.probes.simulated.replay import smallest_cap
from calibrate.probes.simulated.trace import Trace, stage_trace

PART = "language_model"
STAGE = "think"


class FirstAllowed:
    """A chooser that reads no logits: of the allowed tokens it takes the first."""

    def choose(self, logits: Tensor, spans: Spans, drafts: Sequence[Draft]) -> list[int]:  # noqa: ARG002 the protocol's
        """The lowest id that each draft may go on with."""
        return [draft.allowed.spans[0].start for draft in drafts]


@cache
def full_size_lm(lm_id: str, quantization: Quantization | None) -> LanguageModel:
    """Prepared weights of full size on the host, one set for the life of the process."""
    model = build_lm("dummy", lm_id, dtype=torch.bfloat16, materialise="meta")
    if quantization is not None:
        quantize_lm(model, quantization)
    rest_on_host([model.module])
    return model


def trace_thinking(model: LanguageModel, jobs: Sequence[Job], kernels: CudaKernels) -> Trace:
    """What the jobs take of a card on which nothing else rests, as the stage `think`."""
    trace = Trace()
    tape = Tape(trace)
    ledger = Ledger(tape, kernels)
    device = SimulatedDevice(ledger, TraceBook(trace), dtype=model.dtype, grouped_attention=kernels.has_flash)
    placement = Placement({PART: model.module}, (), Offload.CPU_DIT, device)
    backend = PtBackend(model, device, use=lambda: placement.use(PART), chooser=FirstAllowed())
    with kernels, ledger, Memo(ledger, tape, Regions()).patched((DecoderBlock,)):
        device.begin_stage(STAGE)
        backend.write(jobs, lambda done, most: None)  # noqa: ARG005 nobody watches
        device.end_stage()
    return trace


def think_cap(model: LanguageModel, jobs: Sequence[Job], kernels: CudaKernels) -> int:
    """The smallest cap from which on every cap fits the jobs on a card on which nothing else rests."""
    return smallest_cap(stage_trace(trace_thinking(model, jobs, kernels), STAGE))
