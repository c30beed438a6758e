"""A simulated card that refuses allocations during the run, so that every fallback of the pipeline really runs."""

from collections import deque

import torch

from calibrate.probes.simulated.allocator import NO_CAP, Block, CachingAllocator, SimulatedOutOfMemoryError
from calibrate.probes.simulated.region_events import RegionEvents
from calibrate.probes.simulated.trace import ALLOWANCE


class LiveBook:
    """Passes a run's allocations to an allocator model under a cap and raises the errors of a card.

    Allocated peaks exclude the allowance for hidden workspaces; reserved peaks and refusals include it. A storage in a
    reference cycle is freed whenever Python's collector runs, possibly in the middle of an allocator call: that call is
    finished first.
    """

    def __init__(self, cap_bytes: int = NO_CAP) -> None:
        self.allocator = CachingAllocator(cap_bytes)
        self._blocks: dict[int, Block] = {}
        self._allowances: dict[int, int] = {}
        self._allowed = 0
        self._gone: deque[int] = deque()
        self._busy = False
        self._next = 0
        self._peak = 0

    @property
    def counted_bytes(self) -> int:
        """Bytes of live tensors and the matrix-product workspace."""
        return self.allocator.allocated - self._allowed

    def alloc(self, n_bytes: int, owner: str) -> int:
        """Return a block for a storage; raise `torch.OutOfMemoryError` if it does not fit under the cap."""
        self._busy = True
        try:
            block = self.allocator.malloc(n_bytes)
        except SimulatedOutOfMemoryError as error:
            # The text, not the error: a frame that holds its own error is freed only by a garbage collection.
            refusal = f"CUDA out of memory (simulated, for {owner}): {error}"
        else:
            self._next += 1
            self._blocks[self._next] = block
            if owner == ALLOWANCE:
                self._allowances[self._next] = block.size
                self._allowed += block.size
            self._peak = max(self._peak, self.counted_bytes)
            return self._next
        finally:
            self._take_back()
        raise torch.OutOfMemoryError(refusal)

    def free(self, block: int) -> None:
        """Free the storage."""
        self._gone.append(block)
        if not self._busy:
            self._take_back()

    def play(self, recording: RegionEvents) -> dict[int, int]:
        """Do again what a call did; return the blocks that are still alive. Undone if one of them does not fit."""
        return recording.onto(self)

    def _take_back(self) -> None:
        self._busy = True
        while self._gone:
            block = self._gone.popleft()
            self._allowed -= self._allowances.pop(block, 0)
            self.allocator.free(self._blocks.pop(block))
        self._busy = False

    def begin_stage(self, name: str) -> None:  # noqa: ARG002 the protocol's argument
        """Reset the peaks."""
        self.allocator.reset_peaks()
        self._peak = self.counted_bytes

    def end_stage(self) -> tuple[int, int]:
        """Return the peak bytes (counted, reserved) of the stage."""
        return self._peak, self.allocator.peak_reserved

    def empty_cache(self) -> None:
        """Pass the flush on to the allocator."""
        self.allocator.empty_cache()

    def free_bytes(self) -> int:
        """Return the cap minus the allocated bytes."""
        return self.allocator.cap - self.allocator.allocated
