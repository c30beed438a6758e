"""Devices that do one thing after another: a copy is done when the call returns, so there is nothing to wait for."""

from collections.abc import Sequence

from torch import Tensor

from acestep.devices.base import Mark


class InOrder:
    """The part of the `Device` protocol that concerns order, and what only a caching allocator has a use for."""

    def pinned(self, n_bytes: int) -> Tensor | None:  # noqa: ARG002 the protocol's argument
        """None: copies do not run beside computation here."""
        return None

    def make_room(self, n_bytes: int) -> None:
        """Nothing: segments of 20 MiB are a habit of PyTorch's allocator for CUDA and its kin."""

    def mark(self) -> Mark:
        """Nothing to remember."""
        return None

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: Mark) -> Mark:  # noqa: ARG002
        """Copy now."""
        for target, source in pairs:
            target.copy_(source)

    def wait(self, mark: Mark) -> None:
        """Everything asked for is done already."""
