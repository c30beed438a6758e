"""The command that repeats a recorded probe on the simulated card."""

import shlex

from acestep.budgets import System
from acestep.knobs import KNOBS, Knobs
from calibrate.workload import Workload


def repeat_arguments(
    knobs: Knobs, workload: Workload, nameplate_gib: int, system: System = System.LINUX
) -> tuple[str, ...]:
    """Return the arguments of `python -m calibrate estimate`.

    Every knob is named, so that no tier's default applies.
    """
    return (
        *("--vram", str(nameplate_gib)),
        *(("--os", system.value) if system is not System.LINUX else ()),
        # A simulated card compiles nothing.
        *(word for name, knob in KNOBS.items() if name != "compile" for word in knob.arguments(getattr(knobs, name))),
        *("--batch", str(workload.batch)),
        *("--duration", f"{workload.duration_s:g}"),
    )


def repeat_command(knobs: Knobs, workload: Workload, nameplate_gib: int, system: System) -> str:
    """Return the whole command, quoted for a shell."""
    return shlex.join(
        ["python", "-m", "calibrate", "estimate", *repeat_arguments(knobs, workload, nameplate_gib, system)]
    )
