"""The memory of a simulated card under a cap, with the largest amount of each stage and whose it was."""

from collections import Counter

from calibrate.probes.simulated.live import LiveBook
from calibrate.probes.simulated.trace import ALLOWANCE
from ci.scenarios.scenario import BETWEEN


class CardBook(LiveBook):
    """Keeps the peak of each stage since the last `take`, by owner."""

    def __init__(self, cap_bytes: int) -> None:
        super().__init__(cap_bytes)
        self._stage = BETWEEN
        self._owned: Counter[str] = Counter()
        self._of_block: dict[int, tuple[str, int]] = {}
        self._stages: dict[str, dict[str, int]] = {}
        self._refusals = 0

    def alloc(self, n_bytes: int, owner: str) -> int:
        """Return a block for a storage, as `LiveBook` does."""
        block = super().alloc(n_bytes, owner)
        if owner != ALLOWANCE:
            self._of_block[block] = owner, n_bytes
            self._owned[owner] += n_bytes
            self._keep_the_largest()
        return block

    def free(self, block: int) -> None:
        """Free the storage."""
        owner, n_bytes = self._of_block.pop(block, ("", 0))
        self._owned[owner] -= n_bytes
        super().free(block)

    def begin_stage(self, name: str) -> None:
        """Begin to count for a stage."""
        super().begin_stage(name)
        # Each pass of a request goes through its stages again.
        self._stage = name
        self._keep_the_largest()

    def end_stage(self) -> tuple[int, int]:
        """Return the stage's peaks."""
        self._stage = BETWEEN
        return super().end_stage()

    @property
    def held_bytes(self) -> int:
        """Bytes of all tensors now."""
        return self._owned.total()

    def take(self) -> tuple[dict[str, dict[str, int]], int]:
        """Return the peaks by stage and owner, and the refusals, since the last time."""
        stages, self._stages = self._stages, {}
        before, self._refusals = self._refusals, self.allocator.num_oom
        return {name: dict(peak) for name, peak in stages.items()}, self._refusals - before

    def _keep_the_largest(self) -> None:
        if self._owned.total() > sum(self._stages.get(self._stage, {}).values()):
            self._stages[self._stage] = +self._owned
