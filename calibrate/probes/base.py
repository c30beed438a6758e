"""The protocol of every measurement: a prober runs knobs and a workload under a cap."""

from enum import StrEnum
from typing import Protocol

import msgspec

from acestep.knobs import Knobs, Variant
from acestep.request import DecodePath
from calibrate.verdict import Verdict
from calibrate.workload import Workload


class CapMethod(StrEnum):
    """The way in which the allocator was limited to a card's budget."""

    MODEL = "model"
    FRACTION = "fraction"
    BALLAST = "ballast"


class ProbedStage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of a probe, in bytes.

    `resident_bytes` are the weights on the device during the stage; `allowance_bytes` are workspaces that the tensor
    count does not include (cuDNN) and that count in every verdict; `live_at_peak` splits the allocated peak by
    component.
    """

    name: str
    seconds: float
    songs_per_pass: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    resident_bytes: int
    allowance_bytes: int
    live_at_peak: dict[str, int]


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one probe. After an `oom` the last stage is the one that did not fit, up to its failure.

    `withheld_bytes` are the part of the cap that the allocator did not get, because the driver's context took more than
    its share.
    """

    verdict: Verdict
    cap_bytes: int
    stages: tuple[ProbedStage, ...]
    songs_per_pass: int
    decode_path: DecodePath
    seconds: float
    warnings: tuple[str, ...] = ()
    withheld_bytes: int = 0

    @property
    def peak_allocated_bytes(self) -> int:
        """The largest allocated peak of any stage."""
        return max((s.peak_allocated_bytes for s in self.stages), default=0)

    @property
    def peak_reserved_bytes(self) -> int:
        """The largest reserved peak of any stage."""
        return max((s.peak_reserved_bytes for s in self.stages), default=0)


class Prober(Protocol):
    """Runs probes: on a real card, on the simulated one, or from a test's script."""

    @property
    def device(self) -> str:
        """`"cuda"` or `"simulated"`, as written into records."""
        ...

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        """Run once under a cap on the bytes that the allocator may hold.

        Raises `acestep.errors.NotMeasuredError` if the fit cannot be determined.
        """
        ...

    def smallest_caps(self, knobs: Knobs, workload: Workload) -> dict[str, int]:
        """Return for each stage, and under ``"total"`` for the whole run, the smallest cap from which on all fit."""
        ...

    def memory_model(self, variant: Variant) -> dict[str, float]:
        """Return the VRAM guard's memory model of a variant; empty if this prober fits none."""
        ...
