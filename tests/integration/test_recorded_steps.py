"""Steps of the language model that are repeated from a recording write the same tokens as those that are launched."""

import logging
import random
import sys
import weakref
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from acestep.checkpoints.lm import LanguageModel, build_lm, quantize_lm
from acestep.devices.cpu import CpuDevice
from acestep.devices.triton_kernel import TritonKernel
from acestep.knobs import Quantization
from acestep.lm import int8_product, recorded_step
from acestep.lm.backends import pt
from acestep.lm.backends.pt import PtBackend
from acestep.lm.forward import Cache, Decoder
from acestep.lm.int8_product import unpacked
from acestep.lm.job import Job
from acestep.lm.products import FEW_ROWS
from acestep.lm.recorded_step import REACH
from acestep.lm.sampling import Draft, Sampler, Spans
from acestep.lm.vocabulary import CODES_PER_SECOND
from calibrate.probes.simulated.full_size_lm import FirstAllowed
from tests.grammars import Alternating, Counted, job_of
from tests.int8_on_cpu import int8_products_by
from tests.recording_card import RecordingCard

VOCABULARY = 900
IDS = (range(10, 40), range(300, VOCABULARY))
LONG = 16


@pytest.fixture(autouse=True)
def _short_songs_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_step, "WORTH_STEPS", LONG - 1)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return build_lm("tiny", dtype=torch.float32, vocab_size=VOCABULARY)


def silent(step: int, most: int) -> None:
    """Do nothing."""


def _songs(count: int, length: int = LONG, *, guided: bool = True) -> list[Job]:
    draw = random.Random(count)  # noqa: S311 a test case, not a secret
    prompt, other = ([draw.randrange(VOCABULARY) for _ in range(tokens)] for tokens in (20, 7))
    return [
        job_of(Counted(length, *IDS), prompt, other if guided else (), seed=seed, max_tokens=length)
        for seed in range(count)
    ]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every step that is launched operation by operation."""
    rows: list[int] = []
    step = Decoder.step

    def counted(self: Decoder, cache: Cache, tokens: Sequence[int]) -> Tensor:
        rows.append(len(tokens))
        return step(self, cache, tokens)

    monkeypatch.setattr(Decoder, "step", counted)
    return rows


@pytest.mark.parametrize(("songs", "guided"), [(1, False), (4, True)])
def test_recorded_steps_write_the_tokens_of_launched_ones(
    model: LanguageModel, songs: int, guided: bool, launched: list[int]
) -> None:
    jobs, card = _songs(songs, guided=guided), RecordingCard()
    expected = PtBackend(model, CpuDevice()).write(jobs, silent)
    launched.clear()
    assert PtBackend(model, card).write(jobs, silent) == expected
    assert not launched, "one recording serves from the first step to the last"
    assert [tape.repeats for tape in card.tapes] == [LONG - 1]
    assert card.tapes[0].released


def test_a_song_of_four_minutes_is_recorded_two_or_three_times(
    model: LanguageModel, launched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anew for each further 1,024 keys; a recording launches two steps, one before it and one for it."""
    steps, card, step_at = 240 * CODES_PER_SECOND, RecordingCard(), Decoder.step_at
    computed: list[int] = []

    def counted(self: Decoder, *arguments: Any) -> Tensor:
        computed.append(len(card.tapes))
        return step_at(self, *arguments)

    monkeypatch.setattr(Decoder, "step_at", counted)
    backend = PtBackend(model, card, chooser=FirstAllowed())
    for prompt, recordings in ((REACH // 4, 2), (REACH - 100, 3)):
        card.tapes.clear()
        computed.clear()
        backend.write([job_of(Counted(steps + 1, *IDS), [5] * prompt, [7] * 9, max_tokens=steps + 1)], silent)
        assert computed == [made for made in range(recordings) for _ in range(2)]
        assert sum(tape.repeats for tape in card.tapes) == steps
        assert not launched
        assert len(computed) <= 0.005 * steps


def test_songs_of_many_lengths_and_forced_tokens_are_the_same(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows leave, and the keys outgrow what a recording reads, so that there are several recordings."""
    monkeypatch.setattr(recorded_step, "REACH", 16)
    monkeypatch.setattr(recorded_step, "WORTH_STEPS", 1)
    jobs = [
        job_of(Counted(5, *IDS), range(30), range(40), seed=1),
        job_of(Alternating(8, 5, *IDS), range(30), seed=2),
        job_of(Counted(24, *IDS), range(11), range(7), seed=3),
    ]
    card = RecordingCard()
    assert PtBackend(model, card).write(jobs, silent) == PtBackend(model, CpuDevice()).write(jobs, silent)
    assert len(card.tapes) > len(jobs)
    assert all(tape.released for tape in card.tapes)


def test_memory_that_was_never_written_changes_nothing(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = _songs(2)
    expected = PtBackend(model, CpuDevice()).write(jobs, silent)

    def dirty(*arguments: Any) -> Cache:
        cache = Cache(*arguments)
        for lane in cache.lanes:
            lane.store.fill_(float("nan"))
        return cache

    monkeypatch.setattr(pt, "Cache", dirty)
    assert PtBackend(model, RecordingCard()).write(jobs, silent) == expected


@pytest.mark.parametrize("card", [RecordingCard(able=False), RecordingCard(refuses=True)], ids=["no room", "fails"])
def test_where_nothing_is_recorded_steps_are_launched(
    model: LanguageModel, card: RecordingCard, launched: list[int]
) -> None:
    jobs = _songs(2)
    expected = PtBackend(model, CpuDevice()).write(jobs, silent)
    assert PtBackend(model, card).write(jobs, silent) == expected
    assert launched == [4] * (2 * (LONG - 1))
    assert card.asked == 1, "it is not tried again for the same rows and keys"


def test_few_steps_are_not_recorded(model: LanguageModel) -> None:
    card = RecordingCard()
    PtBackend(model, card).write(_songs(1, LONG - 1), silent)
    assert (card.asked, card.tapes) == (0, [])


def _quantised(quantization: Quantization) -> LanguageModel:
    model = build_lm("tiny", dtype=torch.float32, vocab_size=VOCABULARY)
    quantize_lm(model, quantization)
    return model


@pytest.mark.parametrize(
    ("quantization", "has_triton"), [(Quantization.INT8, False), (Quantization.W8A8, True), (Quantization.FP8, True)]
)
def test_steps_whose_weights_torchao_multiplies_are_not_recorded(quantization: Quantization, has_triton: bool) -> None:
    card = RecordingCard(has_triton=has_triton)
    PtBackend(_quantised(quantization), card).write(_songs(1), silent)
    assert (card.asked, card.tapes) == (0, [])


@pytest.mark.parametrize(("songs", "guided"), [(1, False), (FEW_ROWS // 2, True)])
def test_int8_weights_that_a_kernel_reads_are_recorded_and_the_tokens_are_the_same(songs: int, guided: bool) -> None:
    small, jobs, card = _quantised(Quantization.INT8), _songs(songs, guided=guided), RecordingCard(has_triton=True)
    expected = PtBackend(small, CpuDevice()).write(jobs, silent)
    with int8_products_by(unpacked):
        assert PtBackend(small, card).write(jobs, silent) == expected
    assert [tape.repeats for tape in card.tapes] == [LONG - 1]


def test_more_rows_than_the_kernel_takes_are_not_recorded() -> None:
    small, jobs, card = (
        _quantised(Quantization.INT8),
        _songs(FEW_ROWS + 1, guided=False),
        RecordingCard(has_triton=True),
    )
    assert PtBackend(small, card).write(jobs, silent) == PtBackend(small, CpuDevice()).write(jobs, silent)
    assert (card.asked, card.tapes) == (0, [])


def test_a_kernel_that_does_not_compile_is_said_once_and_nothing_is_recorded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(int8_product, "_kernel", TritonKernel("planning"))
    monkeypatch.setitem(sys.modules, "acestep.lm.int8_kernel", None)
    small, jobs, card = _quantised(Quantization.INT8), _songs(2), RecordingCard(has_triton=True)
    expected = PtBackend(small, CpuDevice()).write(jobs, silent)
    with int8_products_by(int8_product._on_cuda), caplog.at_level(logging.WARNING):
        assert PtBackend(small, card).write(jobs, silent) == expected
        assert PtBackend(small, card).write(jobs, silent) == expected
    assert card.tapes == []
    assert sum("Triton made no kernel" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_a_first_step_that_fails_is_not_recorded_and_the_songs_are_written(
    kind: type[RuntimeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def step_at(self: Decoder, *_: object) -> Tensor:
        made = torch.zeros(9)
        card.made = weakref.ref(made)
        raise kind

    small, jobs, card = _quantised(Quantization.INT8), _songs(2), EmptiedCard(has_triton=True)
    expected = PtBackend(small, CpuDevice()).write(jobs, silent)
    monkeypatch.setattr(Decoder, "step_at", step_at)
    with int8_products_by(unpacked):
        assert PtBackend(small, card).write(jobs, silent) == expected
    assert (card.asked, card.tapes) == (1, []), "it is not tried again for the same rows and keys"
    assert card.emptied == [True], "what the step took goes back to the card"


class EmptiedCard(RecordingCard):
    """A card that notes, when its cache is emptied, whether nothing uses the tensor `made` any more."""

    made: weakref.ref[Tensor]

    def __init__(self, *, has_triton: bool) -> None:
        super().__init__(has_triton=has_triton)
        self.emptied: list[bool] = []

    def empty_cache(self) -> None:
        self.emptied.append(self.made() is None)


def test_where_a_kernel_fails_for_other_rows_they_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is compiled for the number of rows, so the first step with fewer can be the first that unpacks weights."""

    def launch(result: Tensor, rows: Tensor, weight: Tensor, scale: Tensor) -> None:
        if len(rows) == 1:
            raise RuntimeError("out of resources")
        result.copy_(unpacked(rows, weight, scale))

    kernels = ModuleType("acestep.lm.int8_kernel")
    kernels.launch_product = launch  # type: ignore[attr-defined]
    monkeypatch.setattr(int8_product, "_kernel", TritonKernel("planning"))
    monkeypatch.setitem(sys.modules, "acestep.lm.int8_kernel", kernels)
    small, card = _quantised(Quantization.INT8), RecordingCard(has_triton=True)
    jobs = [job_of(Counted(length, *IDS), range(20), max_tokens=length) for length in (LONG, 3 * LONG)]
    with int8_products_by(int8_product._on_cuda):
        assert PtBackend(small, card).write(jobs, silent) == PtBackend(small, CpuDevice()).write(jobs, silent)
    assert [tape.repeats for tape in card.tapes] == [LONG - 1], "two rows, and then one row without a recording"


def test_a_recording_is_released_after_an_error(model: LanguageModel) -> None:
    class Stopping(Sampler):
        def choose(self, logits: Tensor, spans: Spans, drafts: Sequence[Draft]) -> list[int]:
            if len(drafts[0].tokens) == 5:
                raise KeyboardInterrupt
            return super().choose(logits, spans, drafts)

    card = RecordingCard()
    with pytest.raises(KeyboardInterrupt):
        PtBackend(model, card, chooser=Stopping(card)).write(_songs(1), silent)
    assert [tape.released for tape in card.tapes] == [True]


def test_a_recording_reads_hardly_more_keys_than_there_are(model: LanguageModel) -> None:
    jobs = [job_of(Counted(9, *IDS), range(20), max_tokens=9)]
    cache = Cache(jobs, model.module.config, model.dtype, torch.device("cpu"))
    for length, reach in ((20, REACH), (REACH - 1, REACH), (REACH, 2 * REACH)):
        cache.lanes[0].length = length
        assert recorded_step._reach(cache) == reach
