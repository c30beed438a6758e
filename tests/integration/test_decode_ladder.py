"""Decoding in simulation: what a tile takes, which one is chosen under which cap, and that fast and live runs agree."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise

import pytest
import torch

from acestep.budgets import System
from acestep.checkpoints.build import build
from acestep.checkpoints.components import Components
from acestep.dit.vae_decode import TILES, choose_tile, frame_bytes
from acestep.engine import decode as decode_stage
from acestep.engine.pipeline import Pipeline, prepare
from acestep.errors import RunFailedError
from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.knobs import Knobs, Offload
from acestep.request import DecodePath, Request
from acestep.units import GIB, MIB, silent
from calibrate.probes.prompt import probe_request
from calibrate.probes.simulated.allocator import NO_CAP
from calibrate.probes.simulated.decoding import play_decode
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.host import rest_on_host
from calibrate.probes.simulated.kernels import CudaKernels, kernels_on
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.live import LiveBook
from calibrate.probes.simulated.memo import Memo, Regions, Tape
from calibrate.probes.simulated.prober import REGIONS, SimulatedProber, full_size
from calibrate.probes.simulated.trace import stage_usage
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.some import first_of

SONG = Workload(batch=2, duration_s=24)

LIVE = Regions()
"""What live runs have learnt of calls, none of it from a prober: each region is still refused where its cap ends."""


class LiveCard:
    """A simulated card that refuses while the run is going on."""

    def __init__(self, cap_bytes: int = NO_CAP) -> None:
        self.book = LiveBook(cap_bytes)
        self._tape = Tape(self.book)
        self._kernels = CudaKernels(SIMULATED_CAPABILITY)
        self._ledger = Ledger(self._tape, self._kernels)
        self.device = SimulatedDevice(
            self._ledger, self.book, dtype=torch.bfloat16, grouped_attention=self._kernels.has_flash
        )

    @contextmanager
    def on(self, regions: Sequence[type[torch.nn.Module]] = REGIONS) -> Iterator[None]:
        with self._kernels, self._ledger, Memo(self._ledger, self._tape, LIVE).patched(regions):
            yield


@pytest.fixture(scope="module")
def prober() -> SimulatedProber:
    return SimulatedProber()


@pytest.mark.parametrize(("tile", "most_gib"), first_of([(512, 0.75), (64, 0.10), (1536, 2.2)], 1))
def test_a_tile_takes_no_more_above_the_weights_than_promised(tile: int, most_gib: float) -> None:
    result = SimulatedProber(vae_chunk=tile).probe(Knobs(), Workload(batch=1, duration_s=600), NO_CAP)
    stage = next(s for s in result.stages if s.name == "decode")
    assert (stage.peak_allocated_bytes - stage.resident_bytes) / GIB <= most_gib


@pytest.mark.parametrize(
    ("offload", "system"),
    [(Offload.NONE, System.LINUX), (Offload.CPU, System.WINDOWS), (Offload.CPU_DIT, System.LINUX)],
)
def test_the_chosen_tile_fits_at_every_cap_from_which_it_is_chosen(
    prober: SimulatedProber, offload: Offload, system: System
) -> None:
    """No attempt is wasted: the first attempt on the card succeeds, both just above a change of the choice and far
    above, and also on Windows, where Snake is not fused and takes a temporary, as on any card without Triton.
    """
    on_it = prober if system is System.LINUX else SimulatedProber(kernels=kernels_on(system))
    workload = Workload(batch=1, duration_s=120)
    run = on_it._traced(Knobs(offload=offload), workload).least
    alone = run.ladder.alone()
    per_frame = frame_bytes(full_size(Knobs().variant, None).vae.decoder)
    in_use = next(alone.attempts(NO_CAP)).outcome.asked[-1]
    for tile in TILES:
        if tile > 2 * 3000:
            continue
        threshold = in_use + min(tile, 3000) * per_frame
        for cap in (threshold + 2 * MIB, threshold + 9 * MIB, threshold + 77 * MIB):
            attempts = list(alone.attempts(cap))
            assert len(attempts) == 1
            assert attempts[0].tile == tile
            assert attempts[0].outcome.fits


def test_repeating_a_song_is_decoding_it_again() -> None:
    """Two songs are traced and the second is repeated; four traced on their own are the same events."""
    components, kernels = full_size(Knobs().variant, None), CudaKernels(SIMULATED_CAPABILITY)
    one, two, four = (
        play_decode(
            components,
            probe_request(Workload(batch=batch, duration_s=8), components.tokenizer),
            64,
            kernels,
            Regions(),
            resident=False,
        ).trace
        for batch in (1, 2, 4)
    )
    song = len(two) - len(one)
    assert len(four) == len(one) + 3 * song
    assert four.sizes[: len(two) - song] == two.sizes[: len(two) - song]
    usage = [stage_usage(trace)[0].peak_bytes for trace in (one, two, four)]
    assert usage[0] == usage[1] == usage[2]


def _caps(prober: SimulatedProber, knobs: Knobs) -> list[int]:
    """Around the smallest cap, where the offload rung helps, and where tiles change."""
    needed = prober.smallest_caps(knobs, SONG)["total"]
    in_use = next(prober._traced(knobs, SONG).least.ladder.attempts(NO_CAP)).outcome.asked[-1]
    per_frame = frame_bytes(full_size(knobs.variant, None).vae.decoder)
    thresholds = [in_use + tile * per_frame for tile in (128, 512)]
    return [needed - 2 * MIB, needed, needed + 34 * MIB, *thresholds, thresholds[0] - 2 * MIB]


@pytest.mark.parametrize("offload", [Offload.NONE, pytest.param(Offload.CPU_DIT, marks=pytest.mark.soak)])
def test_a_replayed_verdict_is_that_of_a_live_run(prober: SimulatedProber, offload: Offload) -> None:
    knobs = Knobs(offload=offload)
    components = full_size(knobs.variant, None)
    request = probe_request(SONG, components.tokenizer)
    for cap in _caps(prober, knobs):
        fast = prober.probe(knobs, SONG, cap)
        card = LiveCard(cap)
        with card.on():
            pipeline = Pipeline(components, knobs, card.device)
            try:
                live = pipeline.generate(request, strict=True)
            except torch.OutOfMemoryError:
                live = None
            pipeline.close()
        assert (live is None) == (fast.verdict is Verdict.OOM), cap
        if live is not None:
            assert live.decode_path is fast.decode_path, cap
            if not any("ran out of memory" in sentence for sentence in live.warnings):
                peaks = [(s.name, s.peak_allocated_bytes, s.peak_reserved_bytes) for s in live.stages]
                probed = {s.name: s for s in fast.stages}
                for name, allocated, reserved in peaks:
                    if name in probed:
                        assert reserved == probed[name].peak_reserved_bytes
                        assert abs(allocated - probed[name].peak_allocated_bytes) <= 8 * MIB


@pytest.mark.parametrize(
    ("room", "path"),
    [(NO_CAP, DecodePath.GPU), (450 * MIB, DecodePath.GPU), (260 * MIB, DecodePath.CPU), (90 * MIB, DecodePath.CPU)],
)
def test_a_card_that_shrinks_before_decoding_only_costs_time(
    monkeypatch: pytest.MonkeyPatch, room: int, path: DecodePath
) -> None:
    """Another program takes the card while denoising ends; all fallbacks run for real, down to the CPU."""
    on_host: list[int] = []
    monkeypatch.setattr(decode_stage._Decoding, "_on_host", lambda run: on_host.append(len(run.songs)))
    knobs = Knobs(offload=Offload.CPU_DIT)
    components = full_size(knobs.variant, None)
    card = LiveCard()

    def shrink(stage: str, done: int, total: int) -> None:
        if stage == "denoise" and done == total:
            card.book.allocator.cap = room

    with card.on():
        pipeline = Pipeline(components, knobs, card.device)
        result = pipeline.generate(
            probe_request(Workload(batch=1, duration_s=24), components.tokenizer), progress=shrink
        )
        pipeline.close()
    assert result.decode_path is path
    assert bool(on_host) == (path is DecodePath.CPU)
    assert any("processor" in sentence for sentence in result.warnings) == (path is DecodePath.CPU)


def tiny_on_meta() -> Components:
    """A tiny model without values, ready to run."""
    components = build("tiny", dtype=torch.bfloat16, materialise="meta")
    prepare(components, Knobs())
    rest_on_host(components.modules().values())
    return components


@pytest.fixture(scope="module")
def tiny() -> Components:
    return tiny_on_meta()


@pytest.mark.parametrize("offload", first_of([Offload.STREAM_ENCODERS, Offload.CPU], 1))
def test_generations_and_failures_leave_nothing(tiny: Components, offload: Offload) -> None:
    leave_nothing(tiny, offload, generations=4)


def leave_nothing(tiny: Components, offload: Offload, generations: int) -> None:
    """Whether the card is at rest after each of so many generations, and after failures; `make soak` runs twenty."""
    card = LiveCard()
    request = Request(caption="x", duration_s=2, batch=2, steps=1)
    # Without regions: what they remember of a call's arguments would look like a leak.
    with card.on(regions=()):
        pipeline = Pipeline(tiny, Knobs(offload=offload), card.device)
        pipeline.generate(request)
        resting = card.book.counted_bytes
        for _ in range(generations):
            pipeline.generate(request)
            assert card.book.counted_bytes == resting
        for spare in (0, 1, 3, 6):
            card.book.allocator.cap = card.book.allocator.allocated + spare * MIB
            with suppress(torch.OutOfMemoryError, RunFailedError):
                pipeline.generate(request, progress=silent, strict=True)
            gc.collect()
            assert card.book.counted_bytes <= resting
        pipeline.close()
    assert card.book.counted_bytes <= MIB * 9, "the matrix-product workspace stays"


def test_a_larger_tile_does_less_work_so_the_largest_that_fits_is_also_the_fastest() -> None:
    components, kernels = full_size(Knobs().variant, None), CudaKernels(SIMULATED_CAPABILITY)
    request = probe_request(Workload(batch=1, duration_s=240), components.tokenizer)
    works = [
        play_decode(components, request, tile, kernels, Regions(), resident=False).work["decode"].totals
        for tile in TILES
    ]
    for smaller, larger in pairwise(works):
        for name in ("flops", "memory_bytes", "launches", "waits"):
            assert getattr(larger, name) < getattr(smaller, name)
        assert larger.transferred_bytes <= smaller.transferred_bytes


@pytest.mark.parametrize("frames", [1, 64, 65, 3000, 15_000])
def test_the_choice_grows_with_the_room_and_never_past_the_song(frames: int) -> None:
    chosen = [choose_tile(room, frames, 1000) for room in range(0, 2_000_000, 7_000)]
    assert chosen == sorted(chosen)
    assert chosen[0] == TILES[0]
    assert chosen[-1] == next((tile for tile in TILES if tile >= frames), TILES[-1])
