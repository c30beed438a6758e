"""The protocol of every measurement: a prober runs knobs and a workload under a cap."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from acestep.hardware.card import SIMULATED_CAPABILITY, Card, CardKind
from acestep.knobs import Knobs, Variant
from acestep.request import DecodePath
from acestep.stage import StageReport
from calibrate.probes.work import Work, WorkTotals
from calibrate.verdict import Verdict
from calibrate.workload import Workload


class CapMethod(StrEnum):
    """The way in which the allocator was limited to a card's budget."""

    MODEL = "model"
    FRACTION = "fraction"
    BALLAST = "ballast"


SAFE_TEXT = r"^[A-Za-z0-9 ._+:/()@-]{0,80}$"
"""Every string of a record: anyone can contribute one, and pages, terminals and file names show its strings."""

Text = Annotated[str, msgspec.Meta(pattern=SAFE_TEXT)]
Bytes = Annotated[int, msgspec.Meta(ge=0)]


class MeasuredStage(StageReport, frozen=True, kw_only=True):
    """One stage of a probe; `seconds` is 0 on a simulated card, which has no clock, and which alone counts `work`.

    `resident_bytes` are the weights on the device during the stage; `allowance_bytes` are workspaces that the tensor
    count does not show (cuDNN), part of every verdict.
    """

    name: Text
    resident_bytes: Bytes
    allowance_bytes: Bytes
    work: WorkTotals | UnsetType = UNSET

    @property
    def activation_bytes(self) -> int:
        """The allocated peak without the weights."""
        return max(0, self.peak_allocated_bytes - self.resident_bytes)

    @property
    def needed_bytes(self) -> int:
        """All the memory of the stage: its tensors, and workspaces that are not tensors."""
        return self.peak_allocated_bytes + self.allowance_bytes


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one probe. After an `oom` the last stage is the one that did not fit, up to its failure.

    `live_at_peak` splits the allocated peak of each stage by component, where that is known.
    `work` is that of each stage by kinds of kernels, where it is counted and the run fits.
    `blocks_at_peak` is the allocated peak of each stage as an allocator counts it: whole blocks, with all workspaces.
    `withheld_bytes` are bytes of the cap that the allocator did not get, because the context took more than its share.
    """

    verdict: Verdict
    cap_bytes: int
    stages: tuple[MeasuredStage, ...]
    songs_per_pass: int
    decode_path: DecodePath
    seconds: float
    warnings: tuple[str, ...] = ()
    withheld_bytes: int = 0
    live_at_peak: dict[str, dict[str, int]] = {}
    blocks_at_peak: dict[str, int] = {}
    work: dict[str, Work] = {}

    @property
    def peak_allocated_bytes(self) -> int:
        """The largest allocated peak of any stage."""
        return max((s.peak_allocated_bytes for s in self.stages), default=0)

    @property
    def peak_reserved_bytes(self) -> int:
        """The largest reserved peak of any stage."""
        return max((s.peak_reserved_bytes for s in self.stages), default=0)


class CardConditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The conditions on a real card: bytes that other processes held before, and bytes of the probe's own context.

    `watched` says whether NVML could be read all the time, `returned_s` how long the card took to return to its state.
    """

    watched: bool
    foreign_bytes: Bytes
    context_bytes: Bytes
    allocator: Text
    returned_s: Annotated[float, msgspec.Meta(ge=0)]


UNCONDITIONED = CardConditions(watched=False, foreign_bytes=0, context_bytes=0, allocator="", returned_s=0.0)
"""The conditions on a simulated card: no other process, and no context."""


def worst_of(seen: Sequence[CardConditions]) -> CardConditions:
    """Return what holds for all probes that were made under some conditions; `UNCONDITIONED` says nothing of a card."""
    known = [conditions for conditions in seen if conditions != UNCONDITIONED]
    if not known:
        return UNCONDITIONED
    return CardConditions(
        watched=all(one.watched for one in known),
        foreign_bytes=max(one.foreign_bytes for one in known),
        context_bytes=max(one.context_bytes for one in known),
        allocator=max(one.allocator for one in known),
        returned_s=max(one.returned_s for one in known),
    )


SIMULATED_CARD = Card(kind=CardKind.CUDA, name="simulated card", capability=SIMULATED_CAPABILITY)
"""The card of a simulation; it has no size."""


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


class CardProber(Prober, Protocol):
    """A prober on a real card. It keeps a model loaded, and can also run a request to its end."""

    @property
    def card(self) -> Card:
        """The card that answers."""
        ...

    @property
    def conditions(self) -> CardConditions:
        """The conditions of the probes so far."""
        ...

    def certify(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        """As `probe`, with all the steps of the variant."""
        ...

    def close(self) -> None:
        """Unload the model."""
        ...


class Simulation(Prober, Protocol):
    """A prober that knows all caps at once, which a real card would take hours to answer."""

    def smallest_caps(self, knobs: Knobs, workload: Workload) -> dict[str, int]:
        """Return for each stage, and under ``"total"`` for the whole run, the smallest cap from which on all fit."""
        ...

    def memory_model(self, variant: Variant) -> dict[str, float]:
        """Return the coefficients with which the VRAM guard predicts a variant's memory."""
        ...
