"""Writing with PyTorch: the library's logits, and every song the same alone or beside others."""

import gc
import random
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from acestep.checkpoints.lm import LanguageModel, build_lm, quantize_lm
from acestep.devices.cpu import CpuDevice
from acestep.knobs import Offload, Quantization
from acestep.lm import forward as caches
from acestep.lm.backends.pt import PtBackend
from acestep.lm.forward import Cache, Decoder
from acestep.lm.job import Job
from acestep.lm.prefill import PREFILL_TOKENS
from acestep.lm.sampling import Draft, Sampler, Spans, guide, next_token
from acestep.memory.placement import LANGUAGE_MODEL, Placement
from acestep.thinking import Sampling
from tests.copying_cards import EagerCard
from tests.grammars import Alternating, Counted, job_of

VOCABULARY = 900
IDS = (range(10, 40), range(300, VOCABULARY))
WHOLE = (range(VOCABULARY),)
FEWEST = PREFILL_TOKENS[0]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return build_lm("tiny", dtype=torch.float32, vocab_size=VOCABULARY)


def silent(step: int, most: int) -> None:
    """Do nothing."""


def _prompt(draw: random.Random, length: int) -> tuple[int, ...]:
    return tuple(draw.randrange(VOCABULARY) for _ in range(length))


@pytest.mark.parametrize("length", [1, 17, FEWEST, FEWEST + 1, 2 * FEWEST + 100])
@torch.no_grad()
def test_logits_are_the_librarys(model: LanguageModel, length: int) -> None:
    draw = random.Random(length)  # noqa: S311 a test case, not a secret
    prompts = [_prompt(draw, length), _prompt(draw, length), _prompt(draw, 5)]
    cache = Cache([job_of(Counted(9, *IDS), prompt) for prompt in prompts], *_shape(model))
    decoder = Decoder(model.module, CpuDevice(), cache.longest)
    sequences = [list(prompts[row.job]) for row in cache.rows]
    states = decoder.read(cache)
    for _ in range(4):
        expected = torch.cat([model.module(torch.tensor([ids])).logits[:, -1] for ids in sequences])
        assert torch.allclose(decoder.logits(states, WHOLE), expected, atol=1e-5)
        part = decoder.logits(states, IDS)
        assert torch.allclose(part, torch.cat([expected[:, ids.start : ids.stop] for ids in IDS], dim=1), atol=1e-5)
        tokens = [draw.randrange(VOCABULARY) for _ in sequences]
        for ids, token in zip(sequences, tokens, strict=True):
            ids.append(token)
        states = decoder.step(cache, tokens)


def _shape(model: LanguageModel) -> tuple[Any, torch.dtype, torch.device]:
    return model.module.config, model.dtype, torch.device("cpu")


def _by_the_library(model: LanguageModel, job: Job) -> tuple[int, ...]:
    """The tokens of one job, every step from scratch and with all logits."""

    def logits(prompt: Sequence[int]) -> Tensor:
        ids = torch.tensor([[*prompt, *draft.tokens]])
        last: Tensor = model.module(ids).logits[0, -1]
        return last

    draft = Draft(job)
    while not draft.done:
        row = logits(job.prompt)
        if job.guided:
            row = guide(row, logits(job.unguided), job.sampling.guidance)
        draft.append(next_token(row.numpy(), WHOLE, draft))
    return tuple(draft.tokens)


def _mixed_jobs(seed: int) -> list[Job]:
    draw = random.Random(seed)  # noqa: S311
    shared = _prompt(draw, 30)
    jobs = []
    for i in range(6):
        length = draw.randint(1, 12)
        grammar = Alternating(length, 5, *IDS) if i % 3 == 2 else Counted(length, *IDS, greedy=i == 4)
        prompt = shared if i % 2 else _prompt(draw, draw.choice([30, 7]))
        unguided = draw.choice([(), shared, _prompt(draw, 7), _prompt(draw, 11)])
        sampling = Sampling(
            temperature=draw.choice([0, 0.85, 1.3]),
            top_k=draw.choice([0, 20]),
            top_p=draw.choice([1, 0.9]),
            repetition_penalty=draw.choice([1, 1.2]),
            guidance=draw.choice([2.0, 3.5]) if unguided else 1.0,
        )
        max_tokens = draw.randint(3, 15)
        jobs.append(job_of(grammar, prompt, unguided, seed=seed + i, max_tokens=max_tokens, sampling=sampling))
    return jobs


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_tokens_are_those_of_the_library_one_song_at_a_time(model: LanguageModel, seed: int) -> None:
    jobs = _mixed_jobs(seed)
    assert PtBackend(model, CpuDevice()).write(jobs, silent) == [_by_the_library(model, job) for job in jobs]


@pytest.mark.parametrize("seed", range(4, 10))
def test_a_song_is_the_same_alone_and_in_any_company(model: LanguageModel, seed: int) -> None:
    jobs, backend = _mixed_jobs(seed), PtBackend(model, CpuDevice())
    together = backend.write(jobs, silent)
    assert [backend.write([job], silent)[0] for job in jobs] == together
    assert backend.write(jobs[::-1], silent) == together[::-1]
    assert backend.write(jobs[1:4], silent) == together[1:4]
    assert backend.write([*jobs, *jobs], silent) == [*together, *together]


def test_different_seeds_give_different_songs(model: LanguageModel) -> None:
    jobs = [job_of(Counted(12, *IDS), seed=seed) for seed in (1, 2, 1)]
    first, second, again = PtBackend(model, CpuDevice()).write(jobs, silent)
    assert first == again != second


def test_a_sequence_ends_with_its_grammar_or_at_its_most_tokens(model: LanguageModel) -> None:
    lengths = [(5, 9), (9, 5), (0, 4), (1, 1)]
    jobs = [job_of(Counted(asked, *IDS), max_tokens=most, seed=i) for i, (asked, most) in enumerate(lengths)]
    heard: list[tuple[int, int]] = []
    out = PtBackend(model, CpuDevice()).write(jobs, lambda step, most: heard.append((step, most)))
    assert [len(tokens) for tokens in out] == [5, 5, 0, 1]
    assert heard == [(step, 9) for step in range(1, 6)]
    assert PtBackend(model, CpuDevice()).write([], silent) == []


class Spy(Sampler):
    """A sampler that records how many logits it gets."""

    def __init__(self) -> None:
        super().__init__(CpuDevice())
        self.seen: list[tuple[int, ...]] = []

    def choose(self, logits: Tensor, spans: Spans, drafts: Sequence[Draft]) -> list[int]:
        assert logits.shape == (len(drafts), sum(map(len, spans)))
        self.seen.append(tuple(logits.shape))
        return super().choose(logits, spans, drafts)


def test_logits_are_made_only_where_there_is_a_choice(model: LanguageModel) -> None:
    spy = Spy()
    codes = range(100, 164)
    jobs = [
        job_of(Alternating(3, 5, codes), (1, 2), (3,)),
        job_of(Counted(4, codes), (1, 2), seed=1),
        job_of(Counted(2, codes), (4,), seed=2),
    ]
    PtBackend(model, CpuDevice(), chooser=spy).write(jobs, silent)
    # The first song's every other token is forced, and songs that are done cost nothing.
    assert spy.seen == [(3, 64), (2, 64), (2, 64), (1, 64), (1, 64)]


def test_finished_songs_are_not_computed_any_more(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, original = [], Decoder.step

    def step(self: Decoder, cache: Cache, tokens: Sequence[int]) -> Tensor:
        rows.append(len(tokens))
        return original(self, cache, tokens)

    monkeypatch.setattr(Decoder, "step", step)
    jobs = [job_of(Counted(length, *IDS), (1, 2), (3,), seed=length) for length in (2, 4, 3)]
    PtBackend(model, CpuDevice()).write(jobs, silent)
    assert rows == [6, 4, 2]


def test_a_prompt_shared_by_songs_is_read_once(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = Decoder._embed
    monkeypatch.setattr(Decoder, "_embed", lambda self, tokens: read.append(len(tokens)) or original(self, tokens))
    PtBackend(model, CpuDevice()).write(
        [job_of(Counted(1, *IDS), range(50), range(9), seed=i) for i in range(8)], silent
    )
    assert sorted(read) == [9, 50]


@pytest.mark.parametrize("seed", range(3))
def test_the_cache_has_the_predicted_size(model: LanguageModel, seed: int) -> None:
    jobs = _mixed_jobs(seed)
    cache = Cache(jobs, *_shape(model))
    allocated = sum(lane.store.nbytes for lane in cache.lanes)
    assert PtBackend(model, CpuDevice()).cache_bytes(jobs) == allocated == caches.cache_bytes(jobs, *_shape(model)[:2])
    token = 2 * 4 * model.module.config.num_hidden_layers * 2 * 16
    alone = job_of(Counted(9, *IDS), range(20), range(10), max_tokens=7)
    assert caches.cache_bytes([alone], *_shape(model)[:2]) == token * (20 + 7 + 10 + 7)


def test_quantised_weights_write_too(model: LanguageModel) -> None:
    small = build_lm("tiny", dtype=torch.float32, vocab_size=VOCABULARY)
    quantize_lm(small, Quantization.INT8)
    jobs = [job_of(Counted(8, *IDS), range(20), range(9), seed=seed, max_tokens=8) for seed in range(4)]
    backend = PtBackend(small, CpuDevice())
    together = backend.write(jobs, silent)
    assert [backend.write([job], silent)[0] for job in jobs] == together
    exact = PtBackend(model, CpuDevice()).write(jobs, silent)
    agreeing = sum(
        a == b for some, others in zip(together, exact, strict=True) for a, b in zip(some, others, strict=True)
    )
    assert agreeing >= 4, "not even first tokens are like those of the weights that were quantised"


class RefusingCard(EagerCard):
    """A card that has no room for the n-th prompt or token."""

    def __init__(self, *, refused: int) -> None:
        super().__init__()
        self.left = refused

    def upload(self, host: Tensor, owner: str) -> Tensor:
        if owner == "prompt":
            self.left -= 1
            if self.left == 0:
                raise torch.OutOfMemoryError("no room")
        return super().upload(host, owner)


@pytest.mark.parametrize("refused", [1, 2, 5])
def test_nothing_is_kept_of_a_run_out_of_memory(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    stores: list[weakref.ref[Cache]] = []
    original = Cache.__init__

    def remember(self: Cache, *args: Any) -> None:
        original(self, *args)
        stores.append(weakref.ref(self))

    monkeypatch.setattr(Cache, "__init__", remember)
    card = RefusingCard(refused=refused)
    placement = Placement({LANGUAGE_MODEL: model.module}, (), Offload.CPU, card)
    backend = PtBackend(model, card, use=lambda: placement.use(LANGUAGE_MODEL))
    jobs = [job_of(Counted(5, *IDS), (1, 2), (3,))]
    resting = model.module.lm_head.weight
    with pytest.raises(torch.OutOfMemoryError):
        backend.write(jobs, silent)
    gc.collect()
    assert stores
    assert all(store() is None for store in stores)
    assert model.module.lm_head.weight is model.module.model.embed_tokens.weight is resting
    assert backend.write(jobs, silent) == PtBackend(model, CpuDevice()).write(jobs, silent)
