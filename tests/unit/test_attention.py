"""Banded attention is dense attention with a band mask; expanded keys are grouped keys."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.checkpoints.build import build
from acestep.checkpoints.libraries import AceStepTransformer1DModel
from acestep.devices.cpu import CpuDevice
from acestep.dit.attention import BLOCK_ROWS, SCORE_ROWS, Kernels, flash_attention, rotary_table, rotate
from acestep.dit.denoiser import Denoiser
from acestep.dit.kernel_choice import Kernel, LayerKind, choose_kernels
from acestep.dit.place import StageContext
from acestep.knobs import Attention, Knobs, Variant


def _dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int) -> torch.Tensor:
    i, j = torch.arange(query.shape[1])[:, None], torch.arange(key.shape[1])[None]
    repeats = query.shape[2] // key.shape[2]
    return F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.repeat_interleave(repeats, 2).transpose(1, 2),
        value.repeat_interleave(repeats, 2).transpose(1, 2),
        attn_mask=(i - j).abs() <= window,
    ).transpose(1, 2)


@settings(max_examples=25)
@given(
    length=st.integers(1, 3 * BLOCK_ROWS + 7),
    window=st.integers(1, 150),
    batch=st.integers(1, 2),
    repeats=st.sampled_from([1, 2, 4]),
)
def test_the_band_equals_the_dense_mask_at_any_length(length: int, window: int, batch: int, repeats: int) -> None:
    generator = torch.Generator().manual_seed(length)
    query = torch.randn(batch, length, 4, 8, generator=generator)
    key, value = torch.randn(2, batch, length, 4 // repeats, 8, generator=generator)
    expected = _dense(query, key, value, window)
    for grouped in (True, False):
        kernels = Kernels(grouped=grouped)
        for _ in range(2):  # the second call finds its masks made
            assert torch.allclose(kernels.banded_(query.clone(), key, value, window), expected, atol=1e-5)


def test_no_mask_is_larger_than_one_block_s_band() -> None:
    kernels = Kernels(grouped=False)
    query, key, value = torch.randn(3, 1, 4_000, 2, 8)
    kernels.banded_(query, key, value, 128)
    assert max(mask.numel() for mask in kernels._masks.values()) <= BLOCK_ROWS * (BLOCK_ROWS + 2 * 128)
    assert len(kernels._masks) <= 3, "interior blocks share one mask"


@pytest.mark.parametrize("repeats", [1, 2])
def test_grouped_and_expanded_keys_agree(repeats: int) -> None:
    query = torch.randn(2, 33, 4, 8)
    key, value = torch.randn(2, 2, 50, 4 // repeats, 8)
    both = [Kernels(grouped=grouped).full(query, key, value) for grouped in (True, False)]
    assert torch.allclose(*both, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("grouped", [True, False])
def test_a_block_of_queries_at_a_time_is_all_at_once(batch: int, grouped: bool) -> None:
    query = torch.randn(batch, 2 * SCORE_ROWS + 5, 4, 8)
    key, value = torch.randn(2, batch, 70, 2, 8)
    blocks = Kernels(grouped=grouped, in_blocks=True).full(query, key, value)
    assert torch.allclose(blocks, Kernels(grouped=True).full(query, key, value), atol=1e-6)


def _dense_flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, window_size: tuple[int, int]) -> torch.Tensor:
    """What flash-attn promises, computed with a dense mask."""
    i, j = torch.arange(q.shape[1])[:, None], torch.arange(k.shape[1])[None]
    left, right = window_size
    seen = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool)
    if left >= 0:
        seen &= j >= i - left
    if right >= 0:
        seen &= j <= i + right
    repeats = q.shape[2] // k.shape[2]
    return F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.repeat_interleave(repeats, 2).transpose(1, 2),
        v.repeat_interleave(repeats, 2).transpose(1, 2),
        attn_mask=seen,
    ).transpose(1, 2)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_model_is_the_same_through_flash_attn_with_its_own_windows(batch: int) -> None:
    transformer = build("tiny", Variant.TURBO, dtype=torch.float32).transformer
    channels = transformer.config.audio_acoustic_hidden_dim
    latents, context = torch.randn(batch, 701, channels), torch.randn(1, 701, 2 * channels)
    condition = torch.randn(1, 77, transformer.condition_embedder.in_features)
    both = []
    for kernels in (Kernels(grouped=True), Kernels(grouped=True, flash=_dense_flash)):
        denoiser = Denoiser(transformer, kernels, lambda _: nullcontext())
        with torch.no_grad():
            both.append(denoiser.velocity(latents, context, denoiser.embed(condition), 0.6))
    assert torch.allclose(*both, atol=1e-5)


def test_flash_attn_is_used_if_it_loads_and_warned_about_if_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.machinery
    import sys
    import types

    def install(**contents: object) -> None:
        module = types.ModuleType("flash_attn")
        module.__spec__ = importlib.machinery.ModuleSpec("flash_attn", None)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, "flash_attn", module)
        flash_attention.cache_clear()

    try:
        install(flash_attn_func=_dense_flash)
        assert flash_attention() is _dense_flash
        install()
        with pytest.warns(UserWarning, match="built for this PyTorch"):
            assert flash_attention() is None
    finally:
        flash_attention.cache_clear()


BACKENDS = st.sampled_from(["cuda", "xpu", "mps", "cpu", "meta"])


@given(backend=BACKENDS, wish=st.sampled_from(Attention), grouped=st.booleans(), flash_attn=st.booleans())
def test_every_kind_of_layer_has_a_kernel_that_holds_no_song_s_scores(
    backend: str, wish: Attention, grouped: bool, flash_attn: bool
) -> None:
    chosen = choose_kernels(backend, wish, grouped=grouped, flash_attn=flash_attn)
    assert set(chosen) == set(LayerKind)
    assert all(choice.why for choice in chosen.values())
    flash = {choice.kernel is Kernel.FLASH_ATTN for choice in chosen.values()}
    asked = wish is not Attention.SDPA
    assert flash == {backend == "cuda" and grouped and flash_attn and asked}
    if not grouped and backend == "cuda":
        assert chosen[LayerKind.FULL].kernel is Kernel.EFFICIENT, "grouped queries would fall to the math kernel"


@pytest.mark.parametrize(("wish", "used"), [(Attention.AUTO, True), (Attention.FLASH, True), (Attention.SDPA, False)])
def test_a_stage_on_a_card_calls_flash_attn_unless_told_not_to(
    monkeypatch: pytest.MonkeyPatch, wish: Attention, used: bool
) -> None:
    class Ampere(CpuDevice):
        torch_device = torch.device("cuda", 0)

    monkeypatch.setattr("acestep.dit.place.flash_attention", lambda: _dense_flash)

    def kernels(device: CpuDevice) -> Kernels:
        return StageContext(components=None, knobs=Knobs(attention=wish), device=device, placement=None).kernels()

    assert (kernels(Ampere()).flash is _dense_flash) == used
    assert kernels(CpuDevice()).flash is None


def test_rotary_embedding_is_the_library_s() -> None:
    from diffusers.models.embeddings import apply_rotary_emb
    from diffusers.models.transformers.ace_step_transformer import _ace_step_rotary_freqs

    x = torch.randn(2, 40, 3, 16)
    table = _ace_step_rotary_freqs(40, 16, 1e6, x.device, x.dtype)
    ours = rotary_table(40, 16, 1e6, x)
    assert all(torch.allclose(mine, theirs, atol=1e-6) for mine, theirs in zip(ours, table, strict=True))
    theirs = apply_rotary_emb(x, table, use_real=True, use_real_unbind_dim=-2, sequence_dim=1)
    assert torch.allclose(rotate(x, *ours), theirs, atol=1e-6)


def test_layers_alternate_as_the_engine_expects() -> None:
    with torch.device("meta"):
        model = AceStepTransformer1DModel(num_hidden_layers=4)
    assert [bool(layer.self_attn.sliding_window) for layer in model.layers] == [True, False, True, False]
