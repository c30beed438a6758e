"""Jobs of a language model in simulation, on a card on which nothing else rests."""

from collections.abc import Sequence

from acestep.checkpoints.lm import LanguageModel
from acestep.knobs import Offload
from acestep.lm.backends.pt import PtBackend
from acestep.lm.forward import DecoderBlock
from acestep.lm.job import Job
from acestep.memory.placement import LANGUAGE_MODEL, Placement
from acestep.stage import Stage
from calibrate.probes.simulated.book import TraceBook
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.full_size_lm import FirstAllowed
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.memo import Memo, Regions, Tape
from calibrate.probes.simulated.replay import smallest_cap
from calibrate.probes.simulated.trace import Trace, stage_trace


def trace_thinking(model: LanguageModel, jobs: Sequence[Job], kernels: CudaKernels, free_bytes: int = 0) -> Trace:
    """What the jobs take of a card on which nothing else rests, as the stage `think`.

    By default nothing is to spare, so prompts are read in the smallest parts.
    """
    trace = Trace()
    tape = Tape(trace)
    ledger = Ledger(tape, kernels)
    device = SimulatedDevice(
        ledger, TraceBook(trace, free_bytes), dtype=model.dtype, grouped_attention=kernels.has_flash
    )
    placement = Placement({LANGUAGE_MODEL: model.module}, (), Offload.CPU_DIT, device)
    backend = PtBackend(model, device, use=lambda: placement.use(LANGUAGE_MODEL), chooser=FirstAllowed())
    with kernels, ledger, Memo(ledger, tape, Regions()).patched((DecoderBlock,)):
        device.begin_stage(Stage.THINK)
        backend.write(jobs, lambda done, most: None)
        device.end_stage()
    return trace


def think_cap(model: LanguageModel, jobs: Sequence[Job], kernels: CudaKernels) -> int:
    """The smallest cap from which on every cap fits the jobs on a card on which nothing else rests."""
    return smallest_cap(stage_trace(trace_thinking(model, jobs, kernels), Stage.THINK))
