"""Out of memory, the same songs still come, with a warning for every fallback; or one error that says what helps."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import acestep.engine.pipeline as pipeline_module
from acestep.checkpoints.components import Components
from acestep.devices.cpu import CpuDevice
from acestep.dit.prompts import lyric_prompt, text_prompt
from acestep.dit.vae_decode import frame_bytes
from acestep.engine import decode as decode_stage
from acestep.engine.pipeline import Pipeline
from acestep.errors import RunFailedError
from acestep.knobs import Knobs, Offload
from acestep.limits.guard import COEFFICIENTS, Demand, growth
from acestep.request import DecodePath, Request
from acestep.result import Result
from tests.small_card import ALWAYS, SmallCard, tiny_components
from tests.some import first_of

SONGS = Request(caption="rain", duration_s=5.2, batch=5, seed=3, steps=1)
"""Each is a little more than the larger of the tiles that a test makes room for."""


@pytest.fixture(scope="module")
def components() -> Components:
    return tiny_components()


@pytest.fixture(scope="module")
def undisturbed(components: Components) -> Result:
    return _generate(components, SmallCard(), Offload.NONE)


def _generate(components: Components, card: SmallCard, offload: Offload, request: Request = SONGS) -> Result:
    pipeline = Pipeline(components, Knobs(offload=offload), card)
    try:
        return pipeline.generate(request)
    finally:
        pipeline.close()


def _same_songs(result: Result, expected: Result) -> None:
    assert [song.seed for song in result.songs] == [song.seed for song in expected.songs]
    for song, reference in zip(result.songs, expected.songs, strict=True):
        assert np.abs(song.audio - reference.audio).max() <= 1e-5


@pytest.mark.parametrize(
    ("refusals", "offload", "path", "steps"),
    [
        (0, Offload.NONE, DecodePath.GPU, 0),
        (1, Offload.NONE, DecodePath.GPU, 1),
        (2, Offload.NONE, DecodePath.GPU_OFFLOAD, 2),
        (4, Offload.NONE, DecodePath.CPU, 4),
        (2, Offload.CPU_DIT, DecodePath.CPU, 2),
        (1, Offload.STREAM_ENCODERS, DecodePath.GPU, 1),
    ],
)
def test_decoding_uses_each_fallback_with_one_warning(
    components: Components, undisturbed: Result, refusals: int, offload: Offload, path: DecodePath, steps: int
) -> None:
    room = 128 * frame_bytes(components.vae.decoder)
    result = _generate(components, SmallCard(free_bytes=room, latent_refusals=refusals), offload)
    assert result.decode_path is path
    assert len(result.warnings) == steps
    _same_songs(result, undisturbed)


def test_without_a_fallback_left_decoding_ends_with_a_sentence(
    components: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = SmallCard()

    def no_memory(*arguments: object) -> None:
        if card in arguments:
            raise torch.OutOfMemoryError("no room for a tile")
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(decode_stage, "decode_song", no_memory)
    with pytest.raises(RunFailedError, match="--duration"):
        _generate(components, card, Offload.NONE)


@pytest.mark.parametrize(("at_once", "expected"), first_of([(3, 2), (1, 1), (2, 2), (5, 5)], 2))
def test_fewer_songs_at_once_are_the_same_songs(
    components: Components, undisturbed: Result, at_once: int, expected: int
) -> None:
    result = _generate(components, SmallCard(songs_at_once=at_once), Offload.CPU)
    assert result.songs_per_pass == expected
    assert next(s for s in result.stages if s.name == "denoise").songs_per_pass == expected
    assert [stage.name for stage in result.stages if stage.name != "encode_audio"] == ["encode", "denoise", "decode"]
    assert bool(result.warnings) == (expected < SONGS.batch)
    _same_songs(result, undisturbed)


def test_when_fewer_songs_do_not_help_more_offload_does(components: Components, undisturbed: Result) -> None:
    pipeline = Pipeline(components, Knobs(offload=Offload.CPU), SmallCard(denoise_refusals=3))
    result = pipeline.generate(SONGS)
    assert result.songs_per_pass == 1
    assert len(result.warnings) == 3
    assert "cpu+dit" in result.warnings[-1]
    _same_songs(result, undisturbed)
    assert pipeline.generate(SONGS).warnings == (), "what helped is kept"
    pipeline.close()


def test_three_retries_and_then_an_error_that_says_what_helps(components: Components) -> None:
    card = SmallCard(denoise_refusals=ALWAYS)
    before = card.denoise_refusals
    pipeline = Pipeline(components, Knobs(offload=Offload.NONE), card)
    with pytest.raises(RunFailedError, match="out of memory") as failure:
        pipeline.generate(SONGS)
    pipeline.close()
    assert before - card.denoise_refusals == 4, "one attempt and three retries"
    assert "with 1 song at once and offload cpu too" in str(failure.value), "what was tried last"
    assert pipeline.knobs.offload is Offload.CPU
    assert "--duration" in str(failure.value)
    assert not isinstance(failure.value.__context__, torch.OutOfMemoryError)
    card.denoise_refusals = 0
    assert len(_generate(components, card, Offload.NONE).songs) == SONGS.batch


class PlainlyRefusing(SmallCard):
    """Refuses with an error that is of no kind of its own."""

    text = ""

    def upload(self, host: Tensor, owner: str) -> Tensor:
        try:
            return super().upload(host, owner)
        except torch.OutOfMemoryError:
            raise RuntimeError(self.text) from None


@pytest.mark.parametrize(
    "text",
    [
        "MPS backend out of memory (MPS allocated: 9.00 GB, max allowed: 9.07 GB).",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_a_backend_without_its_own_error_class_uses_the_same_fallbacks(
    text: str, components: Components, undisturbed: Result
) -> None:
    room = 64 * frame_bytes(components.vae.decoder)
    card = PlainlyRefusing(free_bytes=room, latent_refusals=1, songs_at_once=2)
    card.text = text
    result = _generate(components, card, Offload.CPU)
    assert (result.songs_per_pass, result.decode_path) == (2, DecodePath.GPU_OFFLOAD)
    _same_songs(result, undisturbed)


def test_a_processor_without_memory_makes_fewer_songs_at_once(
    components: Components, undisturbed: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoise = pipeline_module.denoise

    def no_room_for_five(request: Request, *rest: Any) -> Tensor:
        if request.batch > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")
        return denoise(request, *rest)

    monkeypatch.setattr(pipeline_module, "denoise", no_room_for_five)
    result = Pipeline(components, Knobs(), CpuDevice()).generate(SONGS)
    assert result.warnings[0].startswith("The computer ran out of memory with 5 songs at once")
    _same_songs(result, undisturbed)


def test_a_probe_is_not_retried(components: Components) -> None:
    card = SmallCard(denoise_refusals=1)
    pipeline = Pipeline(components, Knobs(), card)
    with pytest.raises(torch.OutOfMemoryError):
        pipeline.generate(SONGS, strict=True)
    assert card.denoise_refusals == 0
    pipeline.close()


def test_the_guard_makes_fewer_songs_at_once_before_anything_fails(components: Components, undisturbed: Result) -> None:
    knobs, encode = Knobs(offload=Offload.CPU), components.tokenizer.encode
    model = {f"none.cpu.{name}": 0.0 for name in COEFFICIENTS}
    lyrics, words = (len(encode(prompt(SONGS), 9_999)) for prompt in (lyric_prompt, text_prompt))

    def need(songs: int) -> int:
        return growth(
            knobs,
            Demand(
                songs=songs,
                frames=SONGS.latent_frames,
                lyric_tokens=lyrics,
                text_tokens=words,
                itemsize=SmallCard.dtype.itemsize,
            ),
        )

    for free, expected in ((need(5), 5), (need(5) - 1, 3), (need(2), 2), (0, 1)):
        pipeline = Pipeline(components, knobs, SmallCard(free_bytes=free), memory_model=model)
        result = pipeline.generate(SONGS)
        pipeline.close()
        assert result.songs_per_pass == expected
        assert len(result.warnings) == (expected < SONGS.batch)
        _same_songs(result, undisturbed)


def test_a_stage_is_told_when_it_begins_and_each_time_a_part_of_it_is_done(components: Components) -> None:
    told: list[tuple[str, int, int]] = []
    pipeline = Pipeline(components, Knobs(), CpuDevice())
    result = pipeline.generate(SONGS, progress=lambda *step: told.append(step))
    pipeline.close()
    stages = [stage.name for stage in result.stages]
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == stages
    for name in stages:
        parts = [(done, total) for stage, done, total in told if stage == name]
        assert parts[0][0] == 0
        assert [done for done, _ in parts] == sorted(done for done, _ in parts)
        assert parts[-1][0] == parts[-1][1] > 0
