"""A song whose latents are no numbers is made once more in float32; float16 overflows nowhere in turbo."""

from contextlib import nullcontext
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

import acestep.engine.pipeline as pipeline_module
from acestep.checkpoints.build import build
from acestep.dit.attention import Kernels
from acestep.dit.blocks import run_stack
from acestep.dit.place import StageContext
from acestep.engine.pipeline import Pipeline, prepare
from acestep.engine.service import Service
from acestep.errors import Exit, NotANumberError
from acestep.hardware.card import simulated_card
from acestep.knobs import Knobs, Offload, Variant
from acestep.limits.plan import exact
from acestep.request import Request
from tests.small_card import SmallCard, tiny_components
from tests.some import first_of

SONG = Request(caption="rain", duration_s=1, batch=2, seed=3, steps=1)
DENOISE = pipeline_module.denoise


class HalfCard(SmallCard):
    """A card that computes in bfloat16."""

    dtype = torch.bfloat16


def broken_below(itemsize: int, value: float = float("nan")) -> Any:
    """Denoising whose last song has a latent that is no number where numbers have fewer bytes."""

    def denoise(request: Request, conditions: Any, place: StageContext, progress: Any) -> Tensor:
        latents = DENOISE(request, conditions, place, progress)
        if place.components.dtype.itemsize < itemsize:
            latents[-1, -1, -1] = value
        return latents

    return denoise


@pytest.mark.parametrize("value", first_of([float("nan"), float("inf")], 1))
def test_a_song_without_numbers_is_made_once_more_in_float32(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "denoise", broken_below(4, value))
    card = simulated_card(8)
    service = Service("tiny", here=(HalfCard(), card))
    try:
        result, _ = service.generate(SONG, exact(card, Knobs(offload=Offload.CPU)))
        said = [sentence for sentence in result.warnings if "float32" in sentence]
        assert len(said) == 1
        assert "bfloat16" in said[0]
        assert all(np.isfinite(song.audio).all() for song in result.songs)
        monkeypatch.setattr(pipeline_module, "denoise", DENOISE)
        again, _ = service.generate(SONG, exact(card, Knobs(offload=Offload.CPU)))
        assert not any("float32" in sentence for sentence in again.warnings), "only that song was made in float32"
    finally:
        service.close()


def test_in_float32_there_is_an_error_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "denoise", broken_below(8))
    card = simulated_card(8)
    service = Service("tiny", here=(SmallCard(), card))
    with pytest.raises(NotANumberError, match="acestep download") as failure:
        service.generate(SONG, exact(card, Knobs()))
    service.close()
    assert failure.value.exit is Exit.RUN_FAILED


def test_a_probe_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "denoise", broken_below(8))
    pipeline = Pipeline(tiny_components(), Knobs(), SmallCard())
    with pytest.raises(NotANumberError):
        pipeline.generate(SONG, strict=True)
    pipeline.close()


def lyric_states(dtype: torch.dtype, *, prepared: bool) -> Tensor:
    """The lyric encoder's states with weights whose last projection has results beyond 65,504."""
    made = build("tiny", dtype=dtype)
    encoder = made.condition_encoder.lyric_encoder
    with torch.no_grad():
        encoder.layers[-1].mlp.down_proj.weight.mul_(3e4)
    if prepared:
        prepare(made, Knobs())
    width = encoder.embed_tokens.in_features
    words = torch.linspace(-2.0, 2.0, 9 * width).view(1, 9, width).to(dtype)
    with torch.no_grad():
        found = run_stack(encoder, encoder.embed_tokens(words), Kernels(grouped=True), lambda _: nullcontext())
    assert found.dtype is dtype
    return found.float()


def test_lyrics_that_overflow_float16_do_not_with_one_projection_in_float32() -> None:
    whole = lyric_states(torch.float32, prepared=True)
    assert torch.isfinite(whole).all()
    assert not torch.isfinite(lyric_states(torch.float16, prepared=False)).all(), "these weights overflow"
    kept = lyric_states(torch.float16, prepared=True)
    assert torch.isfinite(kept).all()
    assert (kept - whole).abs().max() <= 0.02 * whole.abs().max()


@pytest.mark.parametrize(
    ("variant", "capability", "dtype"),
    [
        (Variant.TURBO, (7, 5), torch.float16),
        (Variant.BASE, (7, 5), torch.float32),
        (Variant.XL_TURBO, (7, 5), torch.float32),
        (Variant.TURBO, (8, 6), torch.float32),
    ],
)
def test_a_card_before_ampere_makes_turbo_in_float16(
    variant: Variant, capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []

    def denoise(request: Request, conditions: Any, place: StageContext, progress: Any) -> Tensor:
        seen.append(place.components.dtype)
        return DENOISE(request, conditions, place, progress)

    monkeypatch.setattr(pipeline_module, "denoise", denoise)
    card = msgspec.structs.replace(simulated_card(8), capability=capability)
    # The fake card's own type is float32, as that of a card before Ampere.
    service = Service("tiny", here=(SmallCard(), card))
    try:
        result, _ = service.generate(SONG, exact(card, Knobs(variant=variant, offload=Offload.STREAM_ENCODERS)))
    finally:
        service.close()
    assert set(seen) == {dtype}
    assert all(np.isfinite(song.audio).all() for song in result.songs)
