"""The share of a card that a probe may have: a cap on the allocator, and the charge for all memory outside it."""

import msgspec

from acestep.errors import NotMeasuredError
from acestep.units import MIB, gib
from calibrate.probes.nvml import Usage

SLACK_BYTES = 64 * MIB
"""Differences in the driver's figures that mean nothing: page tables, screen updates."""


class Cap(msgspec.Struct, frozen=True, kw_only=True):
    """A cap for a small card: `cap_bytes` for the allocator, besides a context that is assumed to take `assumed_bytes`.

    `context_bytes` are the measured size of this card's context. What it takes beyond the assumption is subtracted from
    the allocator's share.
    """

    cap_bytes: int
    assumed_bytes: int
    context_bytes: int

    @property
    def free_bytes(self) -> int:
        """Bytes that the small card would have free with this context; 0 if the context alone fills it."""
        return max(0, self.cap_bytes + self.assumed_bytes - self.context_bytes)

    @property
    def allocator_bytes(self) -> int:
        """Bytes that the allocator may hold."""
        return self.cap_bytes - self.withheld_bytes()

    def withheld_bytes(self, grown_bytes: int = 0) -> int:
        """The part of the cap that the context takes beyond its share, after it grew by `grown_bytes`.

        At most the whole cap.
        """
        return min(self.cap_bytes, self._beyond(grown_bytes))

    def overrun_bytes(self, reserved_bytes: int, grown_bytes: int) -> int:
        """Bytes by which a run exceeded the cap, with `reserved_bytes` held and a context that grew by `grown_bytes`.

        Kernels that load at first use and the workspaces of libraries are allocated outside the allocator, where its
        memory fraction does not limit them.
        """
        return max(0, reserved_bytes + self._beyond(grown_bytes) - self.cap_bytes)

    def _beyond(self, grown_bytes: int) -> int:
        return max(0, self.context_bytes + max(0, grown_bytes) - self.assumed_bytes)


def require_cap_room(cap_bytes: int, assumed_bytes: int, before: Usage) -> None:
    """Raise `NotMeasuredError` if the card is too full, or too small, for the cap of a probe."""
    needed = cap_bytes + assumed_bytes
    if needed > before.free_bytes:
        raise NotMeasuredError(
            f"the card has {gib(before.free_bytes)} of {gib(before.total_bytes)} free, and a probe under"
            f" {gib(cap_bytes)} needs {gib(needed)} with the driver's share; close other programs that use it, or"
            " measure smaller sizes"
        )
