"""A streamed block is fetched once for all passes of a step, where their rows fit; else once for each."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from acestep.checkpoints.build import build
from acestep.clip import SAMPLE_RATE, Clip
from acestep.devices.cpu import CpuDevice
from acestep.dit.blocks import DenoiserBlock
from acestep.dit.denoiser import Denoiser
from acestep.engine.pipeline import Pipeline, prepare
from acestep.errors import NotEnoughMemoryError
from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.knobs import Knobs, Offload, Variant
from acestep.limits.workspace import BESIDE_ROOM, GUIDED_VELOCITIES, SEGMENT_GRAIN
from acestep.request import Request, Task
from acestep.stage import Stage
from acestep.units import MIB
from calibrate.probes.base import ProbeResult
from calibrate.probes.prompt import probe_request
from calibrate.probes.simulated.allocator import NO_CAP
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.live import LiveBook
from calibrate.probes.simulated.memo import Memo, Regions, Tape
from calibrate.probes.simulated.prober import REGIONS, SimulatedProber, full_size
from calibrate.record.adapting import adapts
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.copying_cards import EagerCard, LateCard

CLIP = Clip(audio=0.1 * np.random.default_rng(1).standard_normal((2, 3 * SAMPLE_RATE)).astype(np.float32))
COVER: dict[str, Any] = {"task": Task.COVER, "source_audio": CLIP, "cover_strength": 0.5}

STREAMED = Knobs(variant=Variant.BASE, offload=Offload.STREAM_ENCODERS)
SONG = Workload(batch=4, duration_s=60.0)


def song_and_copies(variant: Variant, fields: dict[str, Any], where: Offload, card: CpuDevice) -> tuple[bytes, int]:
    components = build("tiny", variant, dtype=torch.float32)
    prepare(components, Knobs(variant=variant))
    request = Request(caption="slow piano", lyrics="la la", duration_s=2.5, seed=5, steps=3, **fields)
    made = Pipeline(components, Knobs(variant=variant, offload=where), card, vae_chunk=128).generate(request)
    return made.songs[0].audio.tobytes(), card.copies if isinstance(card, EagerCard) else 0


@pytest.mark.parametrize(
    ("variant", "fields", "passes"),
    [
        (Variant.BASE, {}, 2),
        (Variant.TURBO, COVER, 2),
        (Variant.BASE, COVER, 3),
        (Variant.TURBO, {}, 1),
    ],
)
def test_a_block_is_copied_once_a_step_and_the_song_stays_the_same(
    variant: Variant, fields: dict[str, Any], passes: int
) -> None:
    resident, _ = song_and_copies(variant, fields, Offload.NONE, CpuDevice())
    together, few = song_and_copies(variant, fields, Offload.STREAM, roomy(LateCard()))
    apart, many = song_and_copies(variant, fields, Offload.STREAM, full(EagerCard()))
    assert together == apart == resident
    # The first copy begins before any block is used.
    assert many - 1 == passes * (few - 1)


def test_a_step_without_guidance_has_one_pass() -> None:
    fields = {"guidance_interval": (0.1, 1.0)}
    resident, _ = song_and_copies(Variant.BASE, fields, Offload.NONE, CpuDevice())
    together, few = song_and_copies(Variant.BASE, fields, Offload.STREAM, roomy(EagerCard()))
    apart, many = song_and_copies(Variant.BASE, fields, Offload.STREAM, full(LateCard()))
    assert together == apart == resident
    assert few < many < 2 * few - 1


@pytest.mark.parametrize("variant", [Variant.TURBO, Variant.BASE])
@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("offload", [Offload.CPU_DIT, Offload.STREAM, Offload.STREAM_ENCODERS])
def test_the_harness_knows_where_free_memory_changes_the_passes(
    variant: Variant, strength: float, offload: Offload
) -> None:
    fields = COVER | {"cover_strength": strength}
    _, few = song_and_copies(variant, fields, offload, roomy(EagerCard()))
    _, many = song_and_copies(variant, fields, offload, full(EagerCard()))
    workload = Workload(batch=1, duration_s=2.5, task=Task.COVER, cover_strength=strength)
    assert (few < many) == adapts(Stage.DENOISE, Knobs(variant=variant, offload=offload), workload)


class InPieces(LateCard):
    """A card whose free bytes do not lie together: the first time that much of them is wanted, it refuses."""

    refused = False

    def make_room(self, n_bytes: int) -> None:
        if not self.refused:
            self.refused = True
            raise RuntimeError("CUDA error: out of memory")


def test_free_bytes_in_pieces_are_no_room() -> None:
    card = InPieces()
    apart, many = song_and_copies(Variant.BASE, {}, Offload.STREAM, roomy(card))
    resident, few = song_and_copies(Variant.BASE, {}, Offload.STREAM, roomy(LateCard()))
    assert card.refused
    assert apart == resident
    assert many - 1 == 2 * (few - 1)


class Tidied(LateCard):
    """A card that tells which of some tensors are alive when its cache is emptied."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: list[weakref.ref[Tensor]] = []
        self.alive: list[int] = []

    def empty_cache(self) -> None:
        self.alive.append(sum(tensor() is not None for tensor in self.watched))
        self.watched.clear()


BLOCKS = len(build("tiny", Variant.BASE, dtype=torch.float32).transformer.layers)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("at", [0, 1, 2 * BLOCKS - 1, 2 * BLOCKS + 1, 5 * BLOCKS])
def test_a_step_for_which_memory_runs_out_is_repeated_with_its_passes_apart(
    at: int, error: type[RuntimeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two passes in each of three steps; memory runs out in block `at` of all that run."""
    resident, _ = song_and_copies(Variant.BASE, {}, Offload.NONE, CpuDevice())
    _, apart = song_and_copies(Variant.BASE, {}, Offload.STREAM, full(LateCard()))
    card, calls, forward = Tidied(), count(), DenoiserBlock.forward

    def refuses_once(block: DenoiserBlock, hidden: Tensor, *rest: Any) -> Tensor:
        card.watched.append(weakref.ref(hidden))
        if next(calls) == at:
            raise error("CUDA error: out of memory")
        return forward(block, hidden, *rest)

    monkeypatch.setattr(DenoiserBlock, "forward", refuses_once)
    song, copies = song_and_copies(Variant.BASE, {}, Offload.STREAM, roomy(card))
    assert song == resident
    # Each step that went together saved one turn, the attempt took a part of one, and the ring may copy a block again.
    done = at // (2 * BLOCKS)
    attempt = at % (2 * BLOCKS) // 2 + 1
    assert copies <= apart - done * BLOCKS + attempt + 2
    assert copies > apart - (done + 1) * BLOCKS, "the later steps went apart"
    assert not any(card.alive), "the attempt's rows were alive when the cache was emptied"


def test_memory_that_runs_out_for_one_pass_too_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(DenoiserBlock, "forward", refuses)
    with pytest.raises(NotEnoughMemoryError):
        song_and_copies(Variant.BASE, {}, Offload.STREAM, roomy(LateCard()))


def roomy(card: EagerCard) -> EagerCard:
    return with_free(card, NO_CAP)


def full(card: EagerCard) -> EagerCard:
    return with_free(card, 0)


def with_free(card: EagerCard, n_bytes: int) -> EagerCard:
    card.free_bytes = lambda: n_bytes  # type: ignore[method-assign]
    return card


@pytest.fixture(scope="module")
def prober() -> SimulatedProber:
    return SimulatedProber()


@pytest.fixture(scope="module")
def needed(prober: SimulatedProber) -> int:
    return prober.smallest_caps(STREAMED, SONG)["total"]


def denoising(result: ProbeResult) -> Any:
    assert result.verdict is Verdict.FITS
    return next(stage for stage in result.stages if stage.name == Stage.DENOISE)


def test_half_the_bytes_cross_the_bus_where_there_is_room_and_all_the_rest_is_computed_once_each(
    prober: SimulatedProber, needed: int
) -> None:
    def step(cap_bytes: int) -> Any:
        few, more = (
            prober.probe(STREAMED, msgspec.structs.replace(SONG, steps=steps), cap_bytes).work[Stage.DENOISE]
            for steps in (2, 3)
        )
        return more.plus(few, -1)

    together, apart = step(NO_CAP), step(needed)
    assert apart.transferred_bytes == 2 * together.transferred_bytes > 2 * 10**9
    assert together.attention == apart.attention
    assert together.convolutions == apart.convolutions
    assert 0.99 < together.totals.flops / apart.totals.flops <= 1
    assert together.totals.launches < apart.totals.launches


def test_the_rows_of_the_second_pass_are_what_it_takes_more(prober: SimulatedProber, needed: int) -> None:
    together, apart = denoising(prober.probe(STREAMED, SONG, NO_CAP)), denoising(prober.probe(STREAMED, SONG, needed))
    rows = SONG.batch * round(SONG.duration_s * 25) // 2 * 2048 * 2
    # Whether they fit is tried with what small tensors take besides.
    most = rows + BESIDE_ROOM + GUIDED_VELOCITIES * SEGMENT_GRAIN
    assert rows <= together.peak_allocated_bytes - apart.peak_allocated_bytes <= most


def test_every_cap_from_the_smallest_on_fits_and_the_passes_go_together_from_one_of_them_on(
    prober: SimulatedProber, needed: int
) -> None:
    assert prober.probe(STREAMED, SONG, needed - 2 * MIB).verdict is not Verdict.FITS
    sent = []
    for cap in range(needed, needed + 140 * MIB, 2 * MIB):
        denoising(found := prober.probe(STREAMED, SONG, cap))
        sent.append(found.work[Stage.DENOISE].transferred_bytes)
    assert sent == sorted(sent, reverse=True)
    assert len(set(sent)) == 2


def around_the_change(prober: SimulatedProber, needed: int) -> Iterator[int]:
    """The smallest cap, one below it, and the two between which the way changes."""
    yield from (needed - 2 * MIB, needed)
    low, high = needed, needed + 200 * MIB
    most = denoising_bytes(prober, low)
    while high - low > MIB // 4:
        middle = (low + high) // 2
        low, high = (middle, high) if denoising_bytes(prober, middle) == most else (low, middle)
    yield from (low, high)


def denoising_bytes(prober: SimulatedProber, cap_bytes: int) -> int:
    return prober.probe(STREAMED, SONG, cap_bytes).work[Stage.DENOISE].transferred_bytes


def test_the_replayed_way_is_that_of_a_live_run(prober: SimulatedProber, needed: int) -> None:
    components = full_size(STREAMED.variant, None)
    request = probe_request(SONG, components.tokenizer)
    for cap in around_the_change(prober, needed):
        found = prober.probe(STREAMED, SONG, cap)
        with live_card(cap) as device:
            pipeline = Pipeline(components, STREAMED, device)
            try:
                pipeline.generate(request, strict=True)
            except torch.OutOfMemoryError:
                assert found.verdict is Verdict.OOM
            else:
                assert device.work[Stage.DENOISE] == found.work[Stage.DENOISE]
            pipeline.close()


def test_on_a_card_without_a_byte_to_spare_the_passes_fit_apart_after_an_attempt(
    prober: SimulatedProber, needed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt wants a workspace that was not counted."""
    *_, cap = around_the_change(prober, needed)
    velocities, attempts = Denoiser.velocities, count()

    def wanting_more(self: Denoiser, latents: Tensor, context: Tensor, given: Any, now: float) -> list[Tensor]:
        made = velocities(self, latents, context, given, now)
        if len(given) > 1:
            next(attempts)
            latents.new_empty(cap, dtype=torch.uint8)
        return made

    monkeypatch.setattr(Denoiser, "velocities", wanting_more)
    components = full_size(STREAMED.variant, None)
    with live_card(cap) as device:
        pipeline = Pipeline(components, STREAMED, device)
        pipeline.generate(probe_request(SONG, components.tokenizer), strict=True)
        pipeline.close()
    assert next(attempts) == 1
    assert device.work[Stage.DENOISE].transferred_bytes > denoising_bytes(prober, needed)


@contextmanager
def live_card(cap_bytes: int) -> Iterator[SimulatedDevice]:
    """A simulated card that refuses while the run is going on."""
    book, kernels = LiveBook(cap_bytes), CudaKernels(SIMULATED_CAPABILITY)
    tape = Tape(book)
    ledger = Ledger(tape, kernels)
    with kernels, ledger, Memo(ledger, tape, Regions()).patched(REGIONS):
        yield SimulatedDevice(ledger, book, dtype=torch.bfloat16, grouped_attention=kernels.has_flash)
