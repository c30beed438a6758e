"""Who answers a probe: the card in this machine, or the simulated one."""

import os

from acestep.errors import NotMeasuredError
from acestep.hardware import CardKind, detect
from acestep.knobs import Knobs
from calibrate.probes.base import Prober


def prober_for(device: str) -> Prober:
    """The prober of a device, `cuda` or `simulated`; `NotMeasuredError` where there is no card to ask."""
    if device == "simulated":
        from calibrate.probes.simulated.prober import SimulatedProber

        return SimulatedProber()
    if not has_cuda_card():
        raise NotMeasuredError("no CUDA card was found here; use `--device simulated`, which needs none")
    from calibrate.probes.cuda import CudaProber

    return CudaProber()


def has_cuda_card() -> bool:
    """Whether a probe could run on a real card here; asked without importing torch."""
    return detect(os.environ).kind is CardKind.CUDA


def require_no_lm(knobs: Knobs) -> None:
    """Raise `NotMeasuredError` for knobs with a language model: no prober runs one yet, and none guesses."""
    if knobs.lm is not None:
        raise NotMeasuredError(
            f"language model {knobs.lm} cannot be probed yet, only the music model can; use `--lm none`"
        )
