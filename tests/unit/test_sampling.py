"""The next token is a function of the logits, the rules, what was written and the seed's noise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from acestep.devices.cpu import CpuDevice
from acestep.lm.sampling import (
    Draft,
    Sampler,
    _nucleus,
    guide,
    gumbel,
    id_at,
    ids_at,
    likeliest,
    next_token,
    penalise,
    pick,
    position,
)
from acestep.thinking import Sampling
from tests.grammars import Counted, job_of

VOCABULARY = 40

rows = st.lists(st.floats(-20, 20, width=32), min_size=VOCABULARY, max_size=VOCABULARY).map(
    lambda values: np.array(values, dtype=np.float32)
)
distinct_rows = st.permutations(range(VOCABULARY)).map(lambda order: np.array(order, dtype=np.float32) / 4 - 5)
samplings = st.builds(
    Sampling,
    temperature=st.floats(0.05, 2),
    top_k=st.integers(0, 50),
    top_p=st.floats(0.01, 1),
    repetition_penalty=st.floats(1, 2),
    guidance=st.just(1.0),
)


@st.composite
def span_sets(draw: st.DrawFn) -> tuple[range, ...]:
    edges = sorted(draw(st.sets(st.integers(0, VOCABULARY), min_size=2, max_size=8)))
    return tuple(range(edges[i], edges[i + 1]) for i in range(0, len(edges) - 1, 2))


EDGE = 1e-6
"""Nearer than this to where one token ends and the next begins, float32 may decide either way."""


def _by_the_book(values: np.ndarray, sampling: Sampling) -> list[int]:
    """What top-k and top-p keep, step by step over sorted ids and with exact sums; nothing on a knife's edge."""
    kept = sorted(range(len(values)), key=lambda i: -values[i])[: sampling.top_k or None]
    shares = [math.exp(float(values[i])) for i in kept]
    before = [math.fsum(shares[:n]) / math.fsum(shares) for n in range(len(kept))]
    if sampling.top_p < 1:
        if min(abs(share - sampling.top_p) for share in before) < EDGE:
            return []
        kept = [i for i, share in zip(kept, before, strict=True) if share < sampling.top_p]
    return sorted(kept)


@given(distinct_rows, samplings)
def test_what_is_kept_follows_the_documented_order(values: np.ndarray, sampling: Sampling) -> None:
    expected = _by_the_book(values, sampling)
    assume(expected)
    assert likeliest(values, sampling).tolist() == expected


@given(st.integers(2, 5_000), st.floats(0.01, 0.99), st.floats(0.1, 8))
def test_top_p_keeps_the_fewest_tokens_that_reach_it(count: int, top_p: float, spread: float) -> None:
    """Few or many, so also where the likeliest thousand are not enough."""
    values = np.random.default_rng(count).normal(0, spread, count).astype(np.float32)
    shares = np.exp(values.astype(np.float64))
    shares /= shares.sum()
    kept = _nucleus(values, top_p)
    assert shares[kept].sum() >= top_p - EDGE
    assert shares[kept].sum() - shares[kept].min() < top_p + EDGE
    assert kept.tolist() == sorted(kept)


def test_what_ties_with_the_last_token_kept_stays_in() -> None:
    values = np.array([1, 3, 2, 2, 2, 0], dtype=np.float32)
    for sampling in (Sampling(top_k=2, top_p=1, guidance=1), Sampling(top_p=0.5, guidance=1)):
        assert likeliest(values, sampling).tolist() == [1, 2, 3, 4]


def test_tokens_are_drawn_with_their_probabilities() -> None:
    values = np.linspace(-2, 1, 12).astype(np.float32)
    kept, draws, temperature = np.arange(12), 20_000, 0.7
    drawn = [pick(values, kept, temperature, gumbel(5, step, kept)) for step in range(draws)]
    shares = np.exp(values.astype(np.float64) / temperature)
    shares /= shares.sum()
    assert np.abs(np.bincount(drawn, minlength=12) - draws * shares).max() < 5 * np.sqrt(draws / 4)


def test_rounding_hardly_ever_decides() -> None:
    """So a song is the same alone and in a batch, whose sums round otherwise, though flat logits are all near ties."""
    dice = np.random.default_rng(3)
    flat = dice.normal(0, 0.1, 64_000).astype(np.float32)
    sampling = Sampling(top_p=0.9, guidance=1)
    changed = 0
    for step in range(100):
        rounded = (flat + dice.normal(0, 1e-6, len(flat))).astype(np.float32)
        tokens = []
        for row in (flat, rounded):
            kept = likeliest(row, sampling)
            tokens.append(pick(row, kept, 0.85, gumbel(1, step, kept.astype(np.int64))))
        changed += tokens[0] != tokens[1]
    assert changed == 0


@given(
    st.lists(
        st.sampled_from([math.nan, math.inf, -math.inf, 3e38, -3e38, 0.0, 1.5]),
        min_size=VOCABULARY,
        max_size=VOCABULARY,
    ),
    span_sets(),
    samplings,
    st.integers(0, 99),
)
def test_whatever_the_logits_are_the_token_is_an_allowed_one(
    values: list[float], spans: tuple[range, ...], sampling: Sampling, seed: int
) -> None:
    draft = Draft(job_of(Counted(3, *spans), seed=seed, sampling=sampling))
    token = next_token(np.array(values, dtype=np.float32), (range(VOCABULARY),), draft)
    assert token in draft.allowed


@given(rows, span_sets(), samplings, st.integers(0, 99))
def test_ids_that_are_not_allowed_have_no_influence(
    row: np.ndarray, spans: tuple[range, ...], sampling: Sampling, seed: int
) -> None:
    """So a backend may compute logits of all ids, or of those alone."""
    draft = Draft(job_of(Counted(3, *spans), seed=seed, sampling=sampling))
    alone = np.concatenate([row[ids.start : ids.stop] for ids in spans])
    changed = np.full_like(row, 50)
    for ids in spans:
        changed[ids.start : ids.stop] = row[ids.start : ids.stop]
    whole = (range(VOCABULARY),)
    assert next_token(row, whole, draft) == next_token(alone, spans, draft) == next_token(changed, whole, draft)


@given(rows, span_sets(), st.integers(0, 99))
def test_without_temperature_the_likeliest_allowed_token_is_taken(
    row: np.ndarray, spans: tuple[range, ...], seed: int
) -> None:
    allowed = [token for ids in spans for token in ids]
    likeliest = max(allowed, key=lambda token: (row[token], -token))
    cold = job_of(Counted(3, *spans), seed=seed, sampling=Sampling(temperature=0, guidance=1))
    greedy = job_of(Counted(3, *spans, greedy=True), seed=seed)
    assert next_token(row, (range(VOCABULARY),), Draft(cold)) == likeliest
    assert next_token(row, (range(VOCABULARY),), Draft(greedy)) == likeliest


@given(rows, st.sets(st.integers(0, 60)), st.floats(1, 2))
def test_a_penalty_makes_what_was_seen_less_likely_and_nothing_else(
    row: np.ndarray, seen: set[int], penalty: float
) -> None:
    before = row.copy()
    after = penalise(row, (range(VOCABULARY),), seen, penalty)
    assert np.array_equal(row, before)
    for token in range(VOCABULARY):
        assert after[token] <= row[token] if token in seen else after[token] == row[token]


def test_a_penalty_counts_the_prompt_and_what_was_written() -> None:
    row = np.zeros(VOCABULARY, dtype=np.float32)
    row[[5, 6, 7]] = 3, 2.9, 2
    draft = Draft(
        job_of(Counted(9, range(5, 8)), (1, 5), sampling=Sampling(temperature=0, repetition_penalty=2, guidance=1))
    )
    assert next_token(row, (range(VOCABULARY),), draft) == 6
    draft.append(6)
    assert next_token(row, (range(VOCABULARY),), draft) == 7


@given(rows, rows, st.floats(1, 30))
def test_guidance_leads_from_one_row_through_the_other(guided: np.ndarray, unguided: np.ndarray, scale: float) -> None:
    with_, without = torch.from_numpy(guided), torch.from_numpy(unguided)
    found = guide(with_, without, scale)
    assert torch.allclose(found, without + scale * (with_ - without), atol=1e-3)
    assert torch.equal(guide(with_, without, 1.0), with_ - without + without)
    assert guide(with_.bfloat16(), without.bfloat16(), scale).dtype is torch.float32
    assert torch.equal(guide(with_[None], without[None], torch.tensor([[scale]]))[0], found)


@given(span_sets())
def test_positions_and_ids_are_each_others_inverse(spans: tuple[range, ...]) -> None:
    ids = [token for span in spans for token in span]
    assert [id_at(spans, at) for at in range(len(ids))] == ids
    assert [position(spans, token) for token in ids] == list(range(len(ids)))
    assert all(position(spans, token) == -1 for token in range(60) if token not in ids)
    assert ids_at(spans, np.arange(len(ids))).tolist() == ids
    with pytest.raises(IndexError, match="behind the last"):
        id_at(spans, len(ids))


@given(st.integers(0, 2**32 - 1), st.integers(0, 4_000), st.sets(st.integers(0, 217_203), min_size=1))
def test_noise_belongs_to_the_seed_the_step_and_the_token(seed: int, step: int, ids: set[int]) -> None:
    """So it matters neither which other tokens are allowed nor what was forced before."""
    order = np.array(sorted(ids))
    together = gumbel(seed, step, order)
    assert np.isfinite(together).all()
    assert together.tolist() == [float(gumbel(seed, step, order[at : at + 1])[0]) for at in range(len(order))]
    for other in (gumbel(seed + 1, step, order), gumbel(seed, step + 1, order), gumbel(seed, step, order + 1)):
        assert not np.array_equal(other, together)


def test_noise_is_that_of_a_gumbel_distribution() -> None:
    noise = np.sort(np.concatenate([gumbel(seed, 7, np.arange(5_000)) for seed in range(4)]))
    expected = np.exp(-np.exp(-noise))
    assert np.abs(np.arange(1, 20_001) / 20_000 - expected).max() < 0.015


def test_a_draft_ends_with_its_grammar_or_at_its_most_tokens() -> None:
    short, long = (Draft(job_of(Counted(n, range(9)), max_tokens=3)) for n in (2, 5))
    for draft in (short, long):
        while not draft.done:
            draft.append(0)
    assert (len(short.tokens), len(long.tokens)) == (2, 3)
    assert Draft(job_of(Counted(0, range(9)))).done


def test_a_token_that_is_not_allowed_is_refused() -> None:
    draft = Draft(job_of(Counted(2, range(9))))
    with pytest.raises(ValueError, match="9 is not allowed"):
        draft.append(9)
    assert not draft.tokens


def test_the_sampler_reads_each_row_for_its_own_draft() -> None:
    drafts = [Draft(job_of(Counted(2, range(i, VOCABULARY)), seed=i)) for i in range(5)]
    logits = torch.randn(5, VOCABULARY, generator=torch.Generator().manual_seed(0))
    whole = (range(VOCABULARY),)
    together = Sampler(CpuDevice()).choose(logits, whole, drafts)
    assert together == [next_token(row, whole, draft) for row, draft in zip(logits.numpy(), drafts, strict=True)]
