"""The lean engine against the library's own forwards, and operations that must be very fast; on the CPU."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from acestep.checkpoints.architecture import VaeArchitecture, arguments
from acestep.checkpoints.libraries import AceStepTransformer1DModel, AceStepTransformerBlock, AutoencoderOobleck
from acestep.checkpoints.weights import bare, empty, fill, randomise
from acestep.devices.cpu import CpuDevice
from acestep.dit.attention import Kernels, rotary_table
from acestep.dit.blocks import project_heads, project_out, row_pieces, self_attend
from acestep.dit.denoiser import Denoiser
from acestep.dit.vae_decode import TileDecoder, decode_song, fold_weight_norm
from acestep.hardware.card import simulated_card
from acestep.limits.plan import resolve
from acestep.memory.packed import pack_linears
from acestep.request import LATENT_HOP
from acestep.tiers import load_tiers
from tests.benchmarks.versus import versus

FRAMES_PER_SECOND = 25
CONDITION_TOKENS = 300
"""A caption and a short song's lyrics."""

HALF_SIZE = {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8, "num_key_value_heads": 4}
"""A quarter of the 2B transformer's width and half its heads."""

NARROW = {"hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 8, "num_key_value_heads": 2}
"""Heads wider than the model, as in XL: attention's share of the work is nearer to that of a card at full size."""


def _transformer(layers: int, shape: dict[str, int]) -> AceStepTransformer1DModel:
    torch.manual_seed(0)
    model = AceStepTransformer1DModel(
        **shape, head_dim=64, num_hidden_layers=layers, encoder_hidden_size=shape["hidden_size"]
    )
    return model.eval().requires_grad_(False)


def _packed(layers: int, shape: dict[str, int]) -> AceStepTransformer1DModel:
    """The same model, as it runs on a CPU in float32."""
    model = _transformer(layers, shape)
    pack_linears(model)
    return model


@torch.no_grad()
def test_one_sliding_layer_at_ten_minutes(benchmark: Any) -> None:
    from diffusers.models.transformers.ace_step_transformer import _create_4d_mask

    attention, length = _transformer(1, HALF_SIZE).layers[0].self_attn, 300 * FRAMES_PER_SECOND
    hidden = torch.randn(1, length, HALF_SIZE["hidden_size"])
    rotary = rotary_table(length, 64, 1e6, hidden)
    window = attention.sliding_window

    def heads(rows: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return project_heads(attention, rows, cos, sin)

    def ours() -> Tensor:
        return project_out(attention, self_attend(attention, hidden, heads, rotary, Kernels(grouped=True))[0])

    def theirs() -> Tensor:
        mask = _create_4d_mask(
            seq_len=length,
            dtype=hidden.dtype,
            device=hidden.device,
            sliding_window=window,
            is_sliding_window=True,
            is_causal=False,
        )
        return attention(hidden, attention_mask=mask, image_rotary_emb=rotary)[0]

    assert torch.allclose(ours(), theirs(), atol=1e-4)
    assert versus(benchmark, "a sliding layer, 600 s", ours, theirs, rounds=3) >= 8


def _library_step(model: AceStepTransformer1DModel, seconds: int) -> partial[tuple[Tensor]]:
    frames, at = seconds * FRAMES_PER_SECOND, torch.full((1,), 0.7)
    return partial(
        model,
        hidden_states=torch.randn(1, frames, 64),
        timestep=at,
        timestep_r=at,
        encoder_hidden_states=torch.randn(1, CONDITION_TOKENS, model.condition_embedder.in_features),
        context_latents=torch.randn(1, frames, 128),
        return_dict=False,
    )


@pytest.mark.parametrize(
    ("name", "layers", "shape", "seconds", "rounds", "least"),
    [
        ("width 512, 6 layers", 6, HALF_SIZE, 30, 20, 0.95),
        # Half of the layers are full ones, which cost both sides the same; the floor below says what is in reach.
        ("width 512, 6 layers", 6, HALF_SIZE, 600, 1, 2.0),
        ("width 256, 4 layers", 4, NARROW, 30, 25, 0.95),
        # Twice as fast on a quiet machine; a busy one is given a little room.
        ("width 256, 4 layers", 4, NARROW, 600, 2, 1.9),
    ],
)
@torch.no_grad()
def test_a_step_of_a_mid_size_transformer(
    benchmark: Any, name: str, layers: int, shape: dict[str, int], seconds: int, rounds: int, least: float
) -> None:
    theirs = _library_step(_transformer(layers, shape), seconds)
    given = theirs.keywords
    denoiser = Denoiser(_packed(layers, shape), Kernels(grouped=True), lambda _: nullcontext())

    def ours() -> Tensor:
        condition = denoiser.embed(given["encoder_hidden_states"])
        return denoiser.velocity(given["hidden_states"], given["context_latents"], condition, 0.7)

    assert versus(benchmark, f"a step, {name}, {seconds} s", ours, theirs, rounds=rounds) >= least


def _irreducible(layer: AceStepTransformerBlock, tokens: int) -> Callable[[], None]:
    """The matrix products of a layer, in pieces as the engine makes them, and its attention if that is a full one."""
    attention, cross = layer.self_attn, layer.cross_attn
    linears = [m for m in layer.modules() if isinstance(m, nn.Linear) and m not in (cross.to_k, cross.to_v)]
    inputs = {linear.in_features: torch.randn(tokens, linear.in_features) for linear in linears}
    heads = (attention.heads, attention.kv_heads, attention.kv_heads)
    query, key, value = (torch.randn(1, count, tokens, attention.head_dim).transpose(1, 2) for count in heads)

    def compute() -> None:
        for _, rows in row_pieces(1, tokens):
            for linear in linears:
                linear(inputs[linear.in_features][rows])
        if not attention.sliding_window:
            Kernels(grouped=True).full(query, key, value)

    return compute


@pytest.mark.parametrize(("name", "layers", "shape"), [("width 512, 6", 6, HALF_SIZE), ("width 256, 4", 4, NARROW)])
@torch.no_grad()
def test_the_floor_of_a_long_step(benchmark: Any, name: str, layers: int, shape: dict[str, int]) -> None:
    """The minimum that a step must compute, with our kernels: none of ours can be faster than this."""
    tokens = 300 * FRAMES_PER_SECOND
    parts = [_irreducible(layer, tokens) for layer in _packed(layers, shape).layers]

    def floor() -> None:
        for part in parts:
            part()

    theirs = _library_step(_transformer(layers, shape), 600)
    assert versus(benchmark, f"the floor of a step, {name} layers, 600 s", floor, theirs, rounds=1) > 1


@torch.no_grad()
def test_tiled_decoding_costs_little(benchmark: Any) -> None:
    # A quarter of the real decoder's width, so that it is convolutions that are timed, as at full size.
    vae = bare(AutoencoderOobleck, **arguments(VaeArchitecture(decoder_channels=32)))
    tensors = empty(vae, torch.float32, torch.device("cpu"))
    randomise(vae, tensors)
    fill(vae, tensors)
    fold_weight_norm(vae)
    decoder, frames = TileDecoder(vae.decoder), 25 * FRAMES_PER_SECOND
    latents = torch.randn(frames, vae.decoder.conv1.in_channels)
    ours, theirs = (
        partial(decode_song, decoder, latents, frames * LATENT_HOP, CpuDevice(), tile) for tile in (512, frames)
    )
    assert versus(benchmark, "decoding 25 s, tiles of 512 against one piece", ours, theirs, rounds=2) >= 1 / 1.10


def test_a_plan_takes_no_time(benchmark: Any) -> None:
    table, card = load_tiers(), simulated_card(8)
    benchmark(resolve, card, table)
    benchmark.extra_info.update(what="resolving a plan", ours_seconds=benchmark.stats.stats.median)
    assert benchmark.stats.stats.median < 1e-3
