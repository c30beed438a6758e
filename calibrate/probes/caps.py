"""How much of a card a probe may have: a bound on the allocator, and what everything beside it is charged."""

import msgspec

from acestep.errors import NotMeasuredError
from acestep.units import MIB, gib
from calibrate.probes.nvml import Usage

SLACK_BYTES = 64 * MIB
"""Differences in the driver's books that mean nothing: page tables, a display that draws."""


class Cap(msgspec.Struct, frozen=True, kw_only=True):
    """A cap on a small card: `cap_bytes` for the allocator beside a context that is assumed to take `assumed_bytes`.

    `context_bytes` are what this card's context was found to take. What it takes beyond that is the allocator's loss.
    """

    cap_bytes: int
    assumed_bytes: int
    context_bytes: int

    @property
    def free_bytes(self) -> int:
        """What the small card would have free beside this context; 0 where the context alone fills it."""
        return max(0, self.cap_bytes + self.assumed_bytes - self.context_bytes)

    @property
    def allocator_bytes(self) -> int:
        """What the allocator may hold."""
        return self.cap_bytes - self.withheld_bytes()

    def withheld_bytes(self, grown_bytes: int = 0) -> int:
        """What of the cap is the context's, beyond its share, once it has grown by `grown_bytes`; at most all of it."""
        return min(self.cap_bytes, self._beyond(grown_bytes))

    def overrun_bytes(self, reserved_bytes: int, grown_bytes: int) -> int:
        """By how much a run was above the cap that held `reserved_bytes` while the context grew by `grown_bytes`.

        Kernels that load on first use and the workspaces of libraries are taken outside the allocator, where no
        fraction binds them.
        """
        return max(0, reserved_bytes + self._beyond(grown_bytes) - self.cap_bytes)

    def _beyond(self, grown_bytes: int) -> int:
        return max(0, self.context_bytes + max(0, grown_bytes) - self.assumed_bytes)


def require_cap_room(cap_bytes: int, assumed_bytes: int, before: Usage) -> None:
    """Raise `NotMeasuredError` for a card too full, or too small, to give a probe what its cap promises."""
    needed = cap_bytes + assumed_bytes
    if needed > before.free_bytes:
        raise NotMeasuredError(
            f"the card has {gib(before.free_bytes)} of {gib(before.total_bytes)} free, and a probe under"
            f" {gib(cap_bytes)} needs {gib(needed)} with the driver's share; close other programs that use it, or"
            " measure smaller sizes"
        )
