"""The command that repeats a recorded probe on the simulated card."""

import shlex

from acestep.knobs import Knobs
from calibrate.workload import Workload


def repeat_arguments(knobs: Knobs, workload: Workload, nameplate_gib: int) -> tuple[str, ...]:
    """Return the arguments of `python -m calibrate estimate`.

    Every knob is named, so that no tier's default applies.
    """
    return (
        *("--vram", str(nameplate_gib)),
        *("--variant", knobs.variant),
        *("--offload", knobs.offload),
        *("--quantization", knobs.quantization or "none"),
        *("--lm", knobs.lm or "none"),
        *("--lm-quantization", knobs.lm_quantization or "none"),
        *("--backend", knobs.backend),
        *("--attention", knobs.attention),
        *("--batch", str(workload.batch)),
        *("--duration", f"{workload.duration_s:g}"),
    )


def repeat_command(knobs: Knobs, workload: Workload, nameplate_gib: int) -> str:
    """Return the whole command, quoted for a shell."""
    return shlex.join(["python", "-m", "calibrate", "estimate", *repeat_arguments(knobs, workload, nameplate_gib)])
