"""On a real card: fused attention, INT8 and compiled functions make the right song, and no memory stays allocated."""

import gc

import msgspec
import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from acestep.devices.accelerator import CudaDevice
from acestep.dit.attention import Kernels, flash_attention
from acestep.dit.kernel_choice import Kernel, LayerKind, choose_kernels
from acestep.dit.place import StageContext
from acestep.engine.pipeline import Pipeline
from acestep.knobs import Attention, Knobs, Offload, Quantization
from acestep.limits.capabilities import AMPERE
from acestep.memory.placement import Placement
from acestep.units import GIB, MIB
from tests.gpu.wall import filled
from tests.on_a_card import (
    REQUEST,
    distance,
    generated,
    loaded,
    require_nothing_left,
    require_right_attention,
    songs_of_every_placement,
)

pytestmark = pytest.mark.gpu

HALF_PRECISION = 0.02
"""How far apart two orders of the same sums in bf16 may come out, after a whole song."""


def kernels_here(knobs: Knobs | None = None) -> Kernels:
    device = CudaDevice()
    placement = Placement({}, (), Offload.NONE, device)
    return StageContext(components=None, knobs=knobs or Knobs(), device=device, placement=placement).kernels()


def test_the_kernel_chosen_is_the_one_this_card_and_these_packages_have() -> None:
    ampere = torch.cuda.get_device_capability() >= AMPERE
    chosen = choose_kernels("cuda", Attention.AUTO, grouped=ampere, flash_attn=flash_attention() is not None)
    expected = Kernel.FLASH_ATTN if ampere and flash_attention() else Kernel.FLASH if ampere else Kernel.EFFICIENT
    assert chosen[LayerKind.FULL].kernel is expected
    assert (kernels_here().flash is not None) == (expected is Kernel.FLASH_ATTN)
    assert kernels_here(Knobs(attention=Attention.SDPA)).flash is None


@pytest.mark.values
@pytest.mark.parametrize("attention", list(Attention))
def test_attention_never_falls_back_to_materialised_scores(attention: Attention) -> None:
    """PyTorch raises where no kernel that is left can do it, and the one that holds all scores is not left."""
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        require_right_attention(kernels_here(Knobs(attention=attention)), CudaDevice(), rows=3000, tolerance=0.02)


def test_ten_minutes_of_attention_take_no_more_than_their_result() -> None:
    device, kernels = CudaDevice(), kernels_here(Knobs(attention=Attention.SDPA))
    shapes = [(1, 7500, heads, 128) for heads in (16, 8, 8)]
    query, key, value = (torch.randn(s, device=device.torch_device, dtype=device.dtype) for s in shapes)
    for attend in (lambda: kernels.full(query, key, value), lambda: kernels.banded_(query, key, value, 128)):
        device.begin_stage("denoise")
        held = device.allocated_bytes()
        result = attend()
        assert device.end_stage()[0] - held < query.numel() * query.element_size() + 32 * MIB
        del result


@pytest.fixture
def same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """For songs that are compared bit by bit: cuDNN's fastest convolutions may add in another order every time."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.values
@pytest.mark.usefixtures("same_sums")
@pytest.mark.parametrize("quantization", [None, Quantization.INT8])
def test_with_real_streams_every_placement_makes_the_same_song(quantization: Quantization | None) -> None:
    songs = songs_of_every_placement(CudaDevice, quantization, list(Offload))
    assert all(np.array_equal(song, songs[0]) for song in songs[1:])


@pytest.mark.values
@pytest.mark.usefixtures("same_sums")
@pytest.mark.parametrize("offload", [Offload.CPU_DIT, Offload.STREAM, Offload.STREAM_ENCODERS])
def test_full_size_weights_arrive_before_they_are_computed_with(offload: Offload) -> None:
    request = msgspec.structs.replace(REQUEST, duration_s=30)
    device = CudaDevice()
    components = loaded(device, Knobs(), "dummy")
    songs = []
    for where in (Offload.NONE, offload):
        pipeline = Pipeline(components, Knobs(offload=where), device)
        songs.append([pipeline.generate(request).songs[0].audio for _ in range(2)])
        pipeline.close()
        assert device.allocated_bytes() < 64 * MIB, "nothing but workspaces stays"
    assert np.array_equal(songs[0][0], songs[1][0])
    assert np.array_equal(songs[1][0], songs[1][1]), "the second song finds its host weights page-locked"


@pytest.mark.values
def test_int8_saves_half_of_the_transformer_and_keeps_the_song() -> None:
    peaks, songs = {}, {}
    for quantization in (None, Quantization.INT8):
        knobs, device = Knobs(offload=Offload.CPU_DIT, quantization=quantization), CudaDevice()
        result = generated(loaded(device, knobs, "dummy"), knobs, device)
        peaks[quantization] = next(s.peak_allocated_bytes for s in result.stages if s.name == "denoise")
        songs[quantization] = result.songs[0].audio
        gc.collect()
    assert peaks[None] - peaks[Quantization.INT8] > 1.3 * GIB
    assert distance(songs[Quantization.INT8], songs[None]) < 0.5, "noise of another song would be as far off as itself"


# The compiler's own imports use what PyTorch has deprecated.
@pytest.mark.values
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("offload", [Offload.NONE, Offload.STREAM])
def test_compiled_it_is_the_same_song_at_no_more_memory(offload: Offload) -> None:
    device = CudaDevice()
    components = loaded(device, Knobs())
    eager = generated(components, Knobs(offload=offload), device)
    compiled = Knobs(offload=offload, compile=True)
    generated(components, compiled, device)
    warm = generated(components, compiled, device)
    assert distance(warm.songs[0].audio, eager.songs[0].audio) < HALF_PRECISION
    for one, other in zip(warm.stages, eager.stages, strict=True):
        assert one.peak_allocated_bytes <= 1.02 * other.peak_allocated_bytes + MIB


@pytest.mark.parametrize("offload", list(Offload))
def test_twenty_songs_and_failures_leave_no_memory_allocated(offload: Offload) -> None:
    cap = 2 * GIB
    device = CudaDevice(cap)
    walls: list[torch.Tensor] = []

    def held() -> int:
        walls.clear()
        torch.cuda.synchronize()
        return device.allocated_bytes()

    def refuse() -> None:
        walls.extend(filled(device, cap, torch.cuda.memory_reserved))

    try:
        require_nothing_left(device, offload, held, refuse)
        device.empty_cache()
        free = torch.cuda.mem_get_info()[0]
        require_nothing_left(device, offload, held, refuse, generations=3)
        device.empty_cache()
        assert abs(torch.cuda.mem_get_info()[0] - free) <= 64 * MIB, "nor outside the allocator"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.values
@pytest.mark.usefixtures("same_sums")
def test_the_same_seed_is_the_same_song_twice() -> None:
    device = CudaDevice()
    components = loaded(device, Knobs())
    one, other = (generated(components, Knobs(), device, REQUEST).songs[0].audio for _ in range(2))
    assert np.array_equal(one, other)
