"""Plays a trace to the allocator under a cap: whether it fits, and the smallest cap from which on every cap fits."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from acestep.limits.workspace import SEGMENT_GRAIN
from calibrate.probes.simulated.allocator import (
    NO_CAP,
    Block,
    CachingAllocator,
    SimulatedOutOfMemoryError,
)
from calibrate.probes.simulated.loops import Loop, find_loops
from calibrate.probes.simulated.trace import ASK, BEGIN, EMPTY, FREE, Trace

PATIENCE: Final = 8
"""Turns of a loop whose first states are kept to detect a repetition; if none is found by then, all turns are played.
"""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The allocation that did not fit: its event and owner, and its stage (None: between stages)."""

    event: int
    stage: str | None
    owner: str
    requested: int


class ReplayResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a replay, in bytes. After a refusal the last stage is the one it happened in, up to the refusal.

    `stages` have the allocated and the reserved peak of each, as torch would report them after a reset at its start:
    whole blocks, and held segments.
    `asked` has what was allocated each time that the run asked for the free bytes.
    """

    cap_bytes: int
    refusal: Refusal | None
    stages: Mapping[str, tuple[int, int]]
    peak_allocated: int
    peak_reserved: int
    final_allocated: int
    final_reserved: int
    asked: tuple[int, ...]

    @property
    def fits(self) -> bool:
        """Whether every allocation was served."""
        return self.refusal is None


def replay(trace: Trace, cap_bytes: int = NO_CAP, loops: Sequence[Loop] | None = None) -> ReplayResult:
    """Play the whole trace, up to the first allocation that does not fit.

    `loops` is the result of `find_loops` for the trace; pass it when replaying under many caps.
    """
    return Player(trace, cap_bytes).play(find_loops(trace) if loops is None else loops)


def smallest_cap(trace: Trace) -> int:
    """The smallest multiple of `SEGMENT_GRAIN` from which on every cap fits; exact, though fitting is not monotone.

    Let a replay under cap C fit and reserve at most R bytes. Then under any cap C' with R <= C' <= C the allocator
    does the same at every event. By induction its state before the event is the same; if it wants a segment, what it
    would hold with it is compared with the cap, after a flush a second time. What was granted under C led to at most
    R <= C' and is granted again; what was denied under C would have exceeded C >= C' and is denied again. So all of
    [R, C] fits, and the next cap that can behave in another way is the next below R. Reserved bytes are a multiple of
    the grain, so a cap between two multiples does what the lower one does, and nothing lies between R and R - grain.
    Going down so from no cap at all, the first failure, at R - grain, leaves R as the answer.
    """
    loops = find_loops(trace)
    cap = NO_CAP
    while True:
        result = replay(trace, cap, loops)
        if not result.fits:
            return cap + SEGMENT_GRAIN
        if not result.peak_reserved:
            return 0
        cap = result.peak_reserved - SEGMENT_GRAIN


class Player:
    """One replay: the allocator, the live blocks by slot, and the peaks so far."""

    def __init__(self, trace: Trace, cap_bytes: int) -> None:
        self._trace = trace
        self._allocator = CachingAllocator(cap_bytes)
        self._blocks: dict[int, Block] = {}
        self._stages: dict[str, tuple[int, int]] = {}
        self._asked: list[int] = []
        self._open_stage: str | None = None
        self._peak_allocated = 0
        self._peak_reserved = 0
        self._refusal: Refusal | None = None

    @property
    def held(self) -> int:
        """The most bytes of segments so far."""
        return max(self._peak_reserved, self._allocator.peak_reserved)

    @property
    def denied(self) -> int:
        """The smallest amount of segments that was refused; more than every cap if none was."""
        return self._allocator.denied

    def resumed(self, trace: Trace, cap_bytes: int) -> "Player":
        """Return the same replay of a trace that begins alike, under a cap under which it would have gone alike."""
        other = Player(trace, cap_bytes)
        other._allocator, live = self._allocator.copied(cap_bytes)
        for slot, block in self._blocks.items():
            other._blocks[slot] = live[block.address] if block.size else other._allocator.malloc(0)
        other._stages, other._asked = dict(self._stages), list(self._asked)
        other._open_stage, other._refusal = self._open_stage, self._refusal
        other._peak_allocated, other._peak_reserved = self._peak_allocated, self._peak_reserved
        return other

    def play(self, loops: Sequence[Loop], start: int = 0) -> ReplayResult:
        """Play the trace from an event on, unless the replay has ended with a refusal."""
        if self._refusal is None:
            self._refusal = self._all_events(loops, start)
            self._fold_peaks()
        return ReplayResult(
            cap_bytes=self._allocator.cap,
            refusal=self._refusal,
            stages=dict(self._stages),
            peak_allocated=self._peak_allocated,
            peak_reserved=self._peak_reserved,
            final_allocated=self._allocator.allocated,
            final_reserved=self._allocator.reserved,
            asked=tuple(self._asked),
        )

    def _all_events(self, loops: Sequence[Loop], at: int) -> Refusal | None:
        for loop in loops:
            if loop.start < at:
                continue
            refusal = self._events(at, loop.start) or self._turns(loop)
            if refusal:
                return refusal
            at = loop.stop
        return self._events(at, len(self._trace))

    def _turns(self, loop: Loop) -> Refusal | None:
        return self._closed_turns(loop) if loop.closed else self._open_turns(loop)

    def _closed_turns(self, loop: Loop) -> Refusal | None:
        """Play turns until one takes no new segment: those after it do the same, and change nothing.

        The cache is what the segments have besides the live blocks, and free neighbours are one block. So the state
        depends on the segments and the live blocks alone, and both are then as they were before the turn.
        """
        for turn in range(loop.turns):
            before = self._allocator.reserved, self._allocator.num_retries
            start = loop.start + turn * loop.period
            refusal = self._events(start, start + loop.period)
            if refusal:
                return refusal
            if (self._allocator.reserved, self._allocator.num_retries) == before:
                return None
        return None

    def _open_turns(self, loop: Loop) -> Refusal | None:
        """Play turns until one begins in the same state as an earlier one: from there on they repeat."""
        begun: dict[tuple[int, ...], int] = {}
        for turn in range(loop.turns):
            if turn < PATIENCE:
                earlier = begun.setdefault(self._layout(), turn)
                if earlier < turn:
                    left_over = (loop.turns - turn) % (turn - earlier)
                    return self._events(loop.stop - left_over * loop.period, loop.stop)
            start = loop.start + turn * loop.period
            refusal = self._events(start, start + loop.period)
            if refusal:
                return refusal
        return None

    def _events(self, start: int, stop: int) -> Refusal | None:
        """Play the events from `start` up to `stop`; most of a replay's time is spent here."""
        malloc, free = self._allocator.malloc, self._allocator.free
        blocks, release = self._blocks, self._blocks.pop
        events = iter(zip(self._trace.sizes[start:stop], self._trace.slots[start:stop], strict=True))
        try:
            for size, slot in events:
                if size >= 0:
                    blocks[slot] = malloc(size)
                elif size == FREE:
                    free(release(slot))
                else:
                    self._mark(size, slot)
        except SimulatedOutOfMemoryError as error:
            event = stop - 1 - sum(1 for _ in events)
            return self._refused(event, error.requested)
        return None

    def _mark(self, code: int, slot: int) -> None:
        if code == EMPTY:
            self._allocator.empty_cache()
            return
        if code == ASK:
            self._asked.append(self._allocator.allocated)
            return
        self._fold_peaks()
        self._open_stage = self._trace.stage_names[slot] if code == BEGIN else None

    def _fold_peaks(self) -> None:
        """Add the peaks since the last call to the whole run's and the open stage's peaks, and reset them."""
        allocator = self._allocator
        self._peak_allocated = max(self._peak_allocated, allocator.peak_allocated)
        self._peak_reserved = max(self._peak_reserved, allocator.peak_reserved)
        if self._open_stage is not None:
            self._stages[self._open_stage] = allocator.peak_allocated, allocator.peak_reserved
        allocator.reset_peaks()

    def _refused(self, event: int, requested: int) -> Refusal:
        owner = self._trace.owner_names[self._trace.owners[event]]
        return Refusal(event=event, stage=self._open_stage, owner=owner, requested=requested)

    def _layout(self) -> tuple[int, ...]:
        return self._allocator.layout({block: slot for slot, block in self._blocks.items()})
