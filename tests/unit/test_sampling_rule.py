"""The sampler writes the tokens of its rule, written here step by step, for every seed, mask and number of rows."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.devices.cpu import CpuDevice
from acestep.lm.sampling import NUCLEUS_GUESS, PIECE, UNLIKELY, Draft, Sampler
from acestep.thinking import Sampling
from tests.grammars import Counted, job_of

VOCABULARY = 60


def _split_mix(counter: int) -> int:
    """SplitMix64 over Python's integers."""
    mixed = (counter + 1) * 0x9E3779B97F4A7C15 % 2**64
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
    return mixed ^ mixed >> 31


def _noise(seed: int, step: int, ids: Sequence[int]) -> np.ndarray:
    stream = _split_mix((_split_mix(seed) + step) % 2**64)
    bits = [_split_mix((stream + token) % 2**64) >> 11 for token in ids]
    return -np.log(-np.log((np.array(bits, dtype=np.float64) + 0.5) / 2**53))


def by_the_rule(row: np.ndarray, draft: Draft) -> int:
    """The next token from a row over the whole vocabulary: mask, penalty, top-k, top-p, temperature, noise."""
    sampling = draft.job.sampling
    ids = np.array([token for span in draft.allowed.spans for token in span])
    values = row[ids]
    values[np.isnan(values)] = -UNLIKELY
    values = np.clip(values, -UNLIKELY, UNLIKELY)
    if sampling.repetition_penalty != 1:
        for place in np.flatnonzero(np.isin(ids, [*draft.job.prompt, *draft.tokens])):
            values[place] *= sampling.repetition_penalty if values[place] <= 0 else 1
            values[place] /= sampling.repetition_penalty if values[place] > 0 else 1
    if draft.allowed.greedy:
        return int(ids[values.argmax()])
    if 0 < sampling.top_k < len(values):
        kept = values >= np.sort(values)[-sampling.top_k]
        ids, values = ids[kept], values[kept]
    if sampling.top_p < 1:
        shares = np.exp(values - values.max())
        descending = np.sort(shares)[::-1]
        reached = np.flatnonzero(descending.cumsum(dtype=np.float64) >= sampling.top_p * shares.sum(dtype=np.float64))
        kept = shares >= (descending[reached[0]] if len(reached) else 0)
        ids, values = ids[kept], values[kept]
    scores = values.astype(np.float64)
    if sampling.temperature > 0:
        scores = (scores - scores.max()) / sampling.temperature
        scores += _noise(draft.job.seed, len(draft.tokens), [int(token) for token in ids])
    return int(ids[scores.argmax()])


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.05, 0.85, 2.0]),
    top_k=st.sampled_from([0, 1, 7, 1_000]),
    top_p=st.sampled_from([1e-6, 0.3, 0.9, 0.999, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    guidance=st.just(1.0),
)
values = st.floats(-8, 8, width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 3e38, 0.0])


@st.composite
def masks(draw: st.DrawFn, size: int = VOCABULARY) -> tuple[range, ...]:
    edges = sorted(draw(st.sets(st.integers(0, size), min_size=2, max_size=8)))
    return tuple(range(edges[i], edges[i + 1]) for i in range(0, len(edges) - 1, 2))


def _drafts(
    sampling: Sampling, spans: tuple[range, ...], seeds: Sequence[int], written: int, *, greedy: bool = False
) -> list[Draft]:
    drafts = [Draft(job_of(Counted(9, *spans, greedy=greedy), seed=seed, sampling=sampling)) for seed in seeds]
    for draft in drafts:
        for _ in range(written):
            draft.append(spans[0].start)
    return drafts


@settings(max_examples=60)
@given(
    st.lists(st.lists(values, min_size=VOCABULARY, max_size=VOCABULARY), min_size=1, max_size=4),
    samplings,
    masks(),
    st.integers(0, 2**64 - 8),
    st.integers(0, 5),
    st.booleans(),
)
def test_every_row_gets_the_token_of_the_rule(
    rows: list[list[float]],
    sampling: Sampling,
    spans: tuple[range, ...],
    seed: int,
    written: int,
    greedy: bool,
) -> None:
    logits = torch.tensor(rows, dtype=torch.float32)
    drafts = _drafts(sampling, spans, range(seed, seed + len(rows)), written, greedy=greedy)
    chosen = Sampler(CpuDevice()).choose(logits, (range(VOCABULARY),), drafts)
    assert chosen == [by_the_rule(row, draft) for row, draft in zip(logits.numpy().copy(), drafts, strict=True)]


@pytest.mark.parametrize("spread", [0.1, 2, 6])
@pytest.mark.parametrize("threads", [1, 2])
def test_many_values_in_many_rows_get_the_tokens_of_the_rule(
    spread: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of flat logits top-p keeps more than a piece, of steep ones fewer than the first guess."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    size, dice = 2 * PIECE + 5_000, np.random.default_rng(threads)
    logits = torch.from_numpy(dice.normal(0, spread, (3, size)).astype(np.float32))
    sampling = Sampling(top_p=0.9, guidance=1)
    drafts = _drafts(sampling, (range(7, 20), range(300, size)), [1, 2, 2**40], 2)
    chosen = Sampler(CpuDevice()).choose(logits, (range(size),), drafts)
    assert chosen == [by_the_rule(row, draft) for row, draft in zip(logits.numpy().copy(), drafts, strict=True)]


def test_both_ways_to_find_the_nucleus_are_tried() -> None:
    shares = {spread: np.exp(np.random.default_rng(1).normal(0, spread, 2 * PIECE)) for spread in (0.1, 6)}
    most = {spread: np.sort(row)[-NUCLEUS_GUESS:].sum() / row.sum() for spread, row in shares.items()}
    assert most[0.1] < 0.9 < most[6]
