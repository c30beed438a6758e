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
        self._held = 0
        self._of_block: dict[int, tuple[str, int]] = {}
        self._stages: dict[str, dict[str, int]] = {}
        # The largest amount of the open stage, and whether it is the one now, which is not yet written down.
        self._largest = 0
        self._is_largest = False
        self._refusals = 0

    def alloc(self, n_bytes: int, owner: str) -> int:
        """Return a block for a storage, as `LiveBook` does."""
        block = super().alloc(n_bytes, owner)
        if owner != ALLOWANCE:
            self._of_block[block] = owner, n_bytes
            self._owned[owner] += n_bytes
            self._held += n_bytes
            self._compare()
        return block

    def free(self, block: int) -> None:
        """Free the storage."""
        if self._is_largest:
            self._write_down()
        owner, n_bytes = self._of_block.pop(block, ("", 0))
        self._owned[owner] -= n_bytes
        self._held -= n_bytes
        super().free(block)

    def begin_stage(self, name: str) -> None:
        """Begin to count for a stage."""
        super().begin_stage(name)
        # Each pass of a request goes through its stages again.
        self._go_to(name)
        self._compare()

    def end_stage(self) -> tuple[int, int]:
        """Return the stage's peaks."""
        self._go_to(BETWEEN)
        return super().end_stage()

    @property
    def held_bytes(self) -> int:
        """Bytes of all tensors now."""
        return self._held

    def take(self) -> tuple[dict[str, dict[str, int]], int]:
        """Return the peaks by stage and owner, and the refusals, since the last time."""
        self._write_down()
        stages, self._stages = self._stages, {}
        self._largest = 0
        before, self._refusals = self._refusals, self.allocator.num_oom
        return stages, self._refusals - before

    def _go_to(self, stage: str) -> None:
        self._write_down()
        self._stage = stage
        self._largest = sum(self._stages.get(stage, {}).values())

    def _compare(self) -> None:
        if self._held > self._largest:
            self._largest = self._held
            self._is_largest = True

    def _write_down(self) -> None:
        """Keep who has the largest amount, before it becomes less: while it grows, that would be work for nothing."""
        if self._is_largest:
            self._stages[self._stage] = dict(+self._owned)
            self._is_largest = False
