"""Every task on the same tiny weights, noise and audio gives the same songs as the library's pipeline."""

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from acestep.checkpoints.build import build
from acestep.checkpoints.components import Components
from acestep.clip import LATENT_HOP, Clip
from acestep.devices.cpu import CpuDevice
from acestep.engine.pipeline import Pipeline, prepare
from acestep.knobs import Knobs, Variant
from acestep.request import Request, Task
from tests.library import library_audio
from tests.some import first_of

TOLERANCE = 1e-5


def _clip(seconds: float, seed: int) -> Clip:
    """Chords that change and some hiss, so that no two places of a clip sound alike."""
    draw = np.random.default_rng(seed)
    times = np.arange(round(seconds * 48_000)) / 48_000
    tones = sum(np.sin(2 * np.pi * pitch * times * (1 + 0.1 * times)) for pitch in draw.uniform(80, 2_000, 4))
    hiss = draw.standard_normal((2, len(times)))
    return Clip(audio=(0.15 * tones + 0.1 * hiss).astype(np.float32))


# The library keeps nothing outside a window, and computes short songs in fewer frames than we do. 6.11 s is more than
# one encode tile and ends within a latent frame; 5.24 s has no whole number of token windows.
FREELY: dict[str, Any] = {"repaint_strength": 1.0}
CASES: dict[str, tuple[Variant, dict[str, Any]]] = {
    "repaint a window": (
        Variant.TURBO,
        {"task": Task.REPAINT, "source_audio": _clip(6.11, 1), "repaint_start_s": 1.28, "repaint_end_s": 3.3, **FREELY},
    ),
    "repaint to the end": (
        Variant.BASE,
        {"task": Task.REPAINT, "source_audio": _clip(5.3, 2), "repaint_start_s": 0.5, "batch": 2, **FREELY},
    ),
    "cover of audio": (Variant.XL_TURBO, {"task": Task.COVER, "source_audio": _clip(5.24, 3)}),
    "weak cover": (Variant.BASE, {"task": Task.COVER, "source_audio": _clip(5.2, 4), "cover_strength": 0.6}),
    "cover of codes": (
        Variant.TURBO,
        {"task": Task.COVER, "audio_codes": tuple(range(17, 63_000, 2_300)), "cover_strength": 0.3},
    ),
    "extract": (Variant.BASE, {"task": Task.EXTRACT, "source_audio": _clip(5.2, 5), "track": "vocals"}),
    "lego": (
        Variant.BASE,
        {"task": Task.LEGO, "source_audio": _clip(5.2, 7), "track": "drums", "repaint_start_s": 1, "repaint_end_s": 9}
        | FREELY,
    ),
    "complete": (Variant.BASE, {"task": Task.COMPLETE, "source_audio": _clip(5.2, 8), "tracks": ("bass", "fx")}),
    "long reference": (Variant.XL_SFT, {"reference_audio": _clip(32.0, 10), "duration_s": 5.2}),
    "guided in between": (Variant.BASE, {"guidance_interval": (0.2, 0.6), "duration_s": 5.2}),
}


@cache
def _built(variant: Variant) -> Components:
    """As both pipelines begin with it: to be copied."""
    return build("tiny", variant, dtype=torch.float32)


@cache
def _prepared(variant: Variant) -> Components:
    components = copy.deepcopy(_built(variant))
    prepare(components, Knobs(variant=variant))
    return components


def _songs(variant: Variant, request: Request) -> list[np.ndarray]:
    result = Pipeline(_prepared(variant), Knobs(variant=variant), CpuDevice()).generate(request)
    return [song.audio for song in result.songs]


def _request(**fields: Any) -> Request:
    return Request(
        caption="slow piano", lyrics="la la la", seed=11, steps=4, guidance_scale=2.0, **({"dcw": False} | fields)
    )


@pytest.mark.parametrize("case", first_of(CASES, 4))
def test_the_waveform_is_the_library_s(case: str) -> None:
    variant, fields = CASES[case]
    request = _request(**fields)
    theirs = library_audio(copy.deepcopy(_built(variant)), request)
    assert 0.1 < np.abs(theirs).max() < 1
    # What is left of the source after its last whole latent frame is silent in our song.
    whole = request.song_frames * LATENT_HOP
    for ours, reference in zip(_songs(variant, request), theirs, strict=True):
        assert ours.shape == (2, request.samples)
        assert np.abs(ours[:, :whole] - reference[:, :whole]).max() <= TOLERANCE
        assert not ours[:, whole:].any()


@pytest.mark.parametrize(
    ("variant", "fields"),
    [
        (Variant.TURBO, {"task": Task.REPAINT, "repaint_end_s": 1.0, **FREELY}),
        (Variant.TURBO, {"task": Task.COVER}),
        (Variant.TURBO, {"task": Task.COVER, "cover_strength": 0.5}),
        (Variant.TURBO, {"task": Task.COVER, "cover_noise": 0.3}),
        (Variant.BASE, {"guidance_interval": (0.0, 0.4)}),
        (Variant.TURBO, {"dcw": True}),
    ],
)
def test_every_request_field_changes_the_audio(variant: Variant, fields: dict[str, Any]) -> None:
    """The equality above is not trivial: without the field the song is another one."""
    plain: dict[str, Any] = {"task": Task.COMPLETE} if "task" in fields else {}
    if "cover_strength" in fields or "cover_noise" in fields:
        plain = {"task": Task.COVER}
    shared: dict[str, Any] = {"source_audio": _clip(2.0, 12)} if "task" in fields else {"duration_s": 2.0}
    with_wish, without = (_songs(variant, _request(**shared, **wish))[0] for wish in (fields, plain))
    assert np.abs(with_wish - without).max() > 0.01


def test_a_song_of_a_batch_is_the_song_alone_whatever_audio_came_along() -> None:
    fields = {"task": Task.COVER, "source_audio": _clip(2.0, 13)}
    pair = _songs(Variant.TURBO, _request(batch=2, **fields))
    request = Request(caption="slow piano", lyrics="la la la", seed=12, steps=4, dcw=False, **fields)
    assert np.array_equal(pair[1], _songs(Variant.TURBO, request)[0])


@pytest.mark.parametrize("task", [Task.REPAINT, Task.LEGO])
def test_outside_the_window_the_song_is_its_source_bit_by_bit(task: Task) -> None:
    clip = _clip(6.11, 14)
    track = {"track": "drums"} if task is Task.LEGO else {}
    window: dict[str, Any] = {
        "task": task,
        "source_audio": clip,
        "repaint_start_s": 2.013,
        "repaint_end_s": 3.5,
        **track,
    }
    variant = Variant.BASE if task is Task.LEGO else Variant.TURBO
    result = Pipeline(_prepared(variant), Knobs(variant=variant), CpuDevice()).generate(_request(batch=2, **window))
    first, last = round((2.013 - 0.025) * 48_000), round((3.5 + 0.025) * 48_000)
    for song in result.songs:
        assert song.keeps_level
        assert np.array_equal(song.audio[:, :first], clip.audio[:, :first])
        assert np.array_equal(song.audio[:, last:], clip.audio[:, last:])
        assert np.abs(song.audio - clip.audio)[:, first:last].max() > 0.01
    freely = Pipeline(_prepared(variant), Knobs(variant=variant), CpuDevice()).generate(_request(**window, **FREELY))
    assert not freely.songs[0].keeps_level
    assert not np.array_equal(freely.songs[0].audio[:, :first], clip.audio[:, :first])
