"""The decode fallbacks in simulation: one trace for each tile, and the attempts of the pipeline under a cap.

The tile depends on the free bytes, and so on the cap. The events before decoding do not, and each attempt starts with
the memory that was alive then and an empty cache; so an attempt is the trace before decoding followed by that tile's
trace.
"""

from collections.abc import Callable, Iterator
from typing import Final, Self

import msgspec
import torch

from acestep.checkpoints.components import Components
from acestep.dit.place import StageContext
from acestep.dit.vae_decode import TileDecoder, choose_tile, frame_bytes, ladder_from
from acestep.engine.decode import DECODER, decode
from acestep.knobs import Knobs, Offload
from acestep.limits.workspace import SEGMENT_GRAIN
from acestep.memory.placement import Placement
from acestep.request import DecodePath, Request
from acestep.stage import Stage
from calibrate.probes.simulated.allocator import NO_CAP
from calibrate.probes.simulated.book import TraceBook
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.loops import find_loops
from calibrate.probes.simulated.memo import Memo, Regions, Tape
from calibrate.probes.simulated.played import Played
from calibrate.probes.simulated.replay import ReplayResult
from calibrate.probes.simulated.splice import evicted, held, joined, only, repeated
from calibrate.probes.simulated.trace import WORKSPACE, Trace
from calibrate.probes.simulated.under_caps import UnderCaps
from calibrate.probes.simulated.work_counter import Counts, work_between
from calibrate.probes.work import Work

KEEPS_PARTS: Final = (Offload.NONE, Offload.CPU)
"""Offload modes in which parts can be moved off the card before decoding."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One attempt under one cap: where and in which tiles it decodes, and its result."""

    path: DecodePath
    tile: int
    outcome: ReplayResult


def play_decode(
    components: Components, request: Request, tile: int, kernels: CudaKernels, known: Regions, *, resident: bool
) -> Played:
    """Trace only the decode stage in tiles of one size; with `resident` the decoder is on the card already.

    From the second song on each is decoded in the same way, so two are traced and the second is repeated.
    """
    frames, decoder = request.latent_frames, components.vae.decoder
    free_bytes = min(tile, frames) * frame_bytes(decoder)
    by_choice = choose_tile(free_bytes, frames, frame_bytes(decoder)) == tile
    trace = Trace()
    tape = Tape(trace)
    ledger = Ledger(tape, kernels)
    device = SimulatedDevice(
        ledger, TraceBook(trace, free_bytes), dtype=kernels.dtype, grouped_attention=kernels.has_flash
    )
    knobs = Knobs(variant=components.variant, offload=Offload.NONE if resident else Offload.CPU_DIT)
    place = StageContext(
        components=components,
        knobs=knobs,
        device=device,
        placement=Placement({DECODER: decoder}, (), knobs.offload, device),
        vae_chunk=0 if by_choice else tile,
    )
    two = msgspec.structs.replace(request, batch=min(request.batch, 2))
    latents = torch.empty(two.batch, frames, decoder.conv1.in_channels)
    ends: dict[int, int] = {}
    counts: dict[int, Counts] = {0: kernels.work.counts}

    def note_end(_stage: str, done: int, _total: int) -> None:
        # Progress is also reported between the tiles of a song: a song ends at the first report of its number.
        if done not in ends:
            ends[done], counts[done] = len(trace), kernels.work.counts

    with kernels, ledger, Memo(ledger, tape, known).patched((TileDecoder,)), torch.no_grad():
        place.placement.settle()
        device.begin_stage(Stage.DECODE)
        decode(two, latents, place, note_end)
        device.end_stage()
        place.placement.release()
    alone = only(repeated(trace, ends[1], ends[two.batch], request.batch - 1), Stage.DECODE)
    songs = [work_between(counts[song - 1], counts[song]) for song in range(1, two.batch + 1)]
    # The pipeline waits for the card once more when a stage ends.
    whole = songs[0].plus(songs[-1], request.batch - 1).plus(Work(waits=1))
    return Played(trace=alone, loops=find_loops(alone), work={Stage.DECODE: whole})


class DecodeLadder:
    """The pipeline's decode attempts after denoising, for one request under any cap.

    `before` is the run up to decoding; `decode(tile, resident)` traces the stage in tiles of one size.
    """

    def __init__(
        self,
        before: Played,
        decode: Callable[[int, bool], Played],
        *,
        offload: Offload,
        frames: int,
        bytes_per_frame: int,
        vae_chunk: int = 0,
    ) -> None:
        self._before = before
        self._decode = decode
        self._offload = offload
        self._frames = frames
        self._bytes_per_frame = bytes_per_frame
        self._vae_chunk = vae_chunk
        self._in_use: dict[DecodePath, int] = {}
        self._outcomes: dict[tuple[DecodePath, int], UnderCaps[ReplayResult]] = {}

    @property
    def paths(self) -> tuple[DecodePath, ...]:
        """The decode paths on the card."""
        keeps = self._offload in KEEPS_PARTS
        return (DecodePath.GPU, DecodePath.GPU_OFFLOAD) if keeps else (DecodePath.GPU,)

    def attempts(self, cap_bytes: int) -> Iterator[Attempt]:
        """Yield the pipeline's attempts on the card, in order, up to the one that fits; if none fits, only the last."""
        for path in self.paths:
            for attempt in self._on(path, cap_bytes):
                yield attempt
                if not _failed_in_decoding(attempt.outcome):
                    return

    def alone(self) -> Self:
        """Return the same for a run that begins with the memory alive at decoding, without the gaps in the cache."""
        trace = held(self._before.trace)
        return type(self)(
            Played(trace=trace, loops=find_loops(trace), work={}),
            self._decode,
            offload=self._offload,
            frames=self._frames,
            bytes_per_frame=self._bytes_per_frame,
            vae_chunk=self._vae_chunk,
        )

    def smallest_cap(self) -> int:
        """Return the smallest cap from which on every cap fits without decoding on the CPU.

        The smallest tile is tried under every cap. So if a replay of it fits and reserves R bytes, all caps from R up
        to that one fit, as `replay.smallest_cap` argues. A larger tile is tried only if the free bytes allow it, so a
        fit of one says something only about a single step of the grid.
        """
        smallest = ladder_from(self._vae_chunk or self._tile(0))[-1]
        cap = NO_CAP
        while True:
            outcomes = []
            for path in self.paths:
                # The smallest tile is always tried.
                outcomes.append(self._outcome(path, smallest, cap))
                if not _failed_in_decoding(outcomes[-1]):
                    break
            if outcomes[-1].fits:
                cap = outcomes[-1].peak_reserved - SEGMENT_GRAIN
            elif _failed_in_decoding(outcomes[-1]) and any(a.outcome.fits for a in self.attempts(cap)):
                cap -= SEGMENT_GRAIN
            else:
                return cap + SEGMENT_GRAIN

    def _on(self, path: DecodePath, cap_bytes: int) -> Iterator[Attempt]:
        """Yield the attempts of one decode path, largest tile first."""

        def attempt(tile: int) -> Attempt:
            return Attempt(path=path, tile=tile, outcome=self._outcome(path, tile, cap_bytes))

        first = attempt(self._vae_chunk or self._tile(cap_bytes - self._in_use.get(path, 0)))
        if first.outcome.asked and not self._vae_chunk:
            # The bytes allocated when the tile is chosen decide, and no tile can change them.
            self._in_use[path] = first.outcome.asked[-1]
            tile = self._tile(cap_bytes - self._in_use[path])
            first = first if tile == first.tile else attempt(tile)
        yield first
        yield from map(attempt, ladder_from(first.tile)[1:])

    def _tile(self, free_bytes: int) -> int:
        return choose_tile(free_bytes, self._frames, self._bytes_per_frame)

    def _outcome(self, path: DecodePath, tile: int, cap_bytes: int) -> ReplayResult:
        """Replay a run under a cap; its beginning, which all tiles share, is played once."""
        known = self._outcomes.setdefault((path, tile), UnderCaps())
        found = known.find(cap_bytes)
        if found is None:
            player, whole = self._before.end(cap_bytes), self.played(path, tile)
            player = player.resumed(whole.trace, cap_bytes)
            found = player.play(whole.loops, len(self._before.trace))
            known.keep(player.held, player.denied, found)
        return msgspec.structs.replace(found, cap_bytes=cap_bytes)

    def work(self, path: DecodePath, tile: int) -> dict[str, Work]:
        """The work of the stages of a run that decodes so."""
        return self._before.work | self._later(path, tile).work

    def played(self, path: DecodePath, tile: int) -> Played:
        """The whole run that decodes so."""
        later = self._later(path, tile)
        trace = joined(self._before.trace, later.trace)
        if path is DecodePath.GPU_OFFLOAD:
            # One event later, so that the stage begins with the parts that it will move off the card.
            trace = evicted(trace, len(self._before.trace) + 1, spared=(WORKSPACE,))
        shift = len(trace) - len(later.trace)
        shifted = [msgspec.structs.replace(loop, start=loop.start + shift) for loop in later.loops]
        return Played(trace=trace, loops=(*self._before.loops, *shifted), work=self._before.work | later.work)

    def _later(self, path: DecodePath, tile: int) -> Played:
        return self._decode(tile, self._offload is Offload.NONE and path is DecodePath.GPU)


def _failed_in_decoding(outcome: ReplayResult) -> bool:
    return outcome.refusal is not None and outcome.refusal.stage == Stage.DECODE
