"""Songs against the library's own pipeline over the same random weights: seconds and memory, on the CPU.

The library decodes in its own tiles, without which a song of four minutes takes gigabytes; that is its best setting.
"""

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from acestep.checkpoints.architecture import Architecture, QwenArchitecture, VaeArchitecture, arguments
from acestep.checkpoints.build import AUDIO_GAIN, bare_modules, build
from acestep.checkpoints.components import Components
from acestep.checkpoints.libraries import Qwen3Config
from acestep.checkpoints.tokenizer import ByteTokenizer
from acestep.checkpoints.weights import fill, random_tensors
from acestep.devices.cpu import CpuDevice, cpu_dtype
from acestep.engine.pipeline import Pipeline, prepare
from acestep.knobs import Knobs, Variant
from acestep.memory.packed import pack_linears
from acestep.request import Request
from tests.benchmarks.versus import versus
from tests.library import library_arguments, library_pipeline

MID_SIZE = Architecture(
    hidden_size=512,
    intermediate_size=1536,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=64,
    num_hidden_layers=6,
    text_hidden_dim=512,
    num_lyric_encoder_hidden_layers=2,
    num_timbre_encoder_hidden_layers=2,
    num_attention_pooler_hidden_layers=2,
    is_turbo=True,
    model_version="turbo",
)
"""A quarter of the published width, half of the heads, and a quarter of the layers."""

TEXT_ENCODER = QwenArchitecture(
    vocab_size=304,
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=6,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=64,
)
VAE = VaeArchitecture(decoder_channels=16, encoder_hidden_size=16)
"""An eighth of the published width, so that a song of four minutes is decoded in about a minute."""


NEEDED = (
    "mkldnn::_linear_pointwise",
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::scaled_dot_product_attention",
    "aten::convolution",
)
"""Operations of PyTorch, none of which calls another one of these."""


def mid_size() -> Components:
    """A model of 40 million random weights in float32."""
    modules = bare_modules(MID_SIZE, VAE, Qwen3Config(**arguments(TEXT_ENCODER)))
    torch.manual_seed(0)
    for name, module in modules.items():
        tensors = random_tensors(module, torch.float32, torch.device("cpu"))
        if name == "vae":
            tensors["decoder.conv2.weight_g"].fill_(AUDIO_GAIN)
        fill(module, tensors)
    return Components(variant=Variant.TURBO, tokenizer=ByteTokenizer(), is_noise="dummy", **modules)


def both(make: Callable[[], Components], request: Request) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """How we make the songs, and how the library does, with equal weights.

    Those of the VAE are changed for ours, and in float32 the others too: they are packed.
    """
    components = make()
    alike = make() if components.dtype is torch.float32 else components
    library = library_pipeline(msgspec.structs.replace(alike, vae=copy.deepcopy(components.vae)))
    library.vae.enable_tiling()
    wishes = library_arguments(components, request)
    prepare(components, Knobs())
    for module in components.modules().values():
        pack_linears(module)
    pipeline = Pipeline(components, Knobs(), CpuDevice(components.dtype))
    return lambda: pipeline.generate(request), lambda: library(output_type="np", **wishes)


def _request(duration_s: int, batch: int = 1) -> Request:
    return Request(
        caption="slow piano, rain",
        lyrics="[verse]\n" + "la la la " * 40,
        duration_s=duration_s,
        batch=batch,
        seed=11,
        language="en",
        # Which the library has not.
        dcw=False,
    )


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("duration_s", "batch", "rounds"), [(30, 1, 2), (120, 1, 1), (240, 1, 1), (30, 4, 1)])
def test_songs_of_a_mid_size_model(benchmark: Any, duration_s: int, batch: int, rounds: int) -> None:
    ours, theirs = both(mid_size, _request(duration_s, batch))
    what = f"mid-size, {batch} x {duration_s} s, 8 steps"
    assert versus(benchmark, what, ours, theirs, rounds=rounds, warm=duration_s == 30, memory=True) >= 0.95


@pytest.mark.timeout(3600)
def test_the_floor_of_a_song(benchmark: Any) -> None:
    """Ours, if everything but matrix products, attention and convolutions were free."""
    ours, theirs = both(mid_size, _request(120))
    started = benchmark._timer()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        ours()
    floor = (benchmark._timer() - started) * _needed_share(seen)
    benchmark.pedantic(theirs, rounds=1)
    library = benchmark.stats.stats.min
    what = "the floor of mid-size, 1 x 120 s, 8 steps"
    benchmark.extra_info.update(what=what, ours_seconds=floor, theirs_seconds=library, ratio=library / floor)
    print(f"\n{what}: {floor:.2f} s against {library:.2f} s")  # noqa: T201
    assert floor < library


def _needed_share(seen: profile) -> float:
    """The share of a run's time that its matrix products, attention and convolutions take."""
    operations = seen.key_averages()
    needed = sum(operation.cpu_time_total for operation in operations if operation.key in NEEDED)
    return float(needed / sum(operation.self_cpu_time_total for operation in operations))


@pytest.mark.timeout(3600)
def test_a_song_of_the_full_size_model(benchmark: Any) -> None:
    dtype = cpu_dtype()
    ours, theirs = both(lambda: build("dummy", dtype=dtype), _request(10))
    what = f"full size, 1 x 10 s, 8 steps, both in {str(dtype).removeprefix('torch.')}"
    assert versus(benchmark, what, ours, theirs, rounds=1, warm=False, memory=True) >= 0.95
