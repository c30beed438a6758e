from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.checkpoints.architecture import QwenArchitecture
from acestep.lm.backends.vllm_memory import (
    BLOCK_TOKENS,
    WORKSPACE_BYTES,
    Pool,
    block_bytes,
    blocks_of,
    pool_for,
    pool_of,
    vllm_footprint,
)
from acestep.thinking import Sampling
from acestep.units import GIB, KIB, MIB
from tests.tiny_planner import song

SMALL = QwenArchitecture(vocab_size=217_204)
LARGE = QwenArchitecture(
    vocab_size=217_204, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32
)
rows = st.integers(1, 32)
lengths = st.integers(1, 8_192)


@given(tokens=st.integers(1, 100_000))
def test_blocks_hold_their_tokens_and_waste_less_than_one(tokens: int) -> None:
    assert 0 <= blocks_of(tokens) * BLOCK_TOKENS - tokens < BLOCK_TOKENS


@given(
    sizes=st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900), st.integers(1, 900), st.booleans()), min_size=1)
)
def test_a_pool_for_jobs_holds_every_row_at_its_longest_and_no_block_more(sizes: list[Any]) -> None:
    jobs = [
        song(length=length, codes=codes, unguided=unguided, sampling=Sampling(guidance=2 if guided else 1))
        for length, codes, unguided, guided in sizes
    ]
    pool = pool_for(jobs)
    prompts = [(job, prompt) for job in jobs for prompt in (job.prompt, job.unguided) if prompt]
    assert pool.rows == len(prompts)
    assert pool.longest == max(job.longest for job in jobs)
    assert pool.blocks == 1 + sum(blocks_of(len(prompt) + job.max_tokens) for job, prompt in prompts)


@given(rows=rows, longest=lengths, other_rows=rows, other_longest=lengths)
def test_a_pool_with_room_for_another_holds_both(rows: int, longest: int, other_rows: int, other_longest: int) -> None:
    one, other = pool_of(rows, longest), pool_of(other_rows, other_longest)
    both = one.with_room_for(other)
    assert both.with_room_for(one) == both.with_room_for(other) == both == other.with_room_for(one)
    assert both.blocks >= max(one.blocks, other.blocks)


@given(rows=rows, longest=lengths)
def test_all_rows_of_a_pool_can_read_the_last_block_of_their_prompts_in_one_step(rows: int, longest: int) -> None:
    assert pool_of(rows, longest).batched_tokens >= rows * BLOCK_TOKENS


def test_a_pool_too_small_for_its_longest_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="longest"):
        Pool(rows=1, longest=65, blocks=3)


def test_a_token_takes_the_published_bytes() -> None:
    assert block_bytes(SMALL, 2) == 112 * KIB * BLOCK_TOKENS
    assert block_bytes(LARGE, 2) == 144 * KIB * BLOCK_TOKENS


@given(rows=rows, longest=lengths, weights=st.integers(0, 10 * GIB))
def test_a_footprint_grows_with_all_that_it_is_made_of(rows: int, longest: int, weights: int) -> None:
    def peak(rows: int, longest: int, weights: int, architecture: QwenArchitecture = SMALL) -> int:
        return vllm_footprint(architecture, pool_of(rows, longest), weight_bytes=weights, itemsize=2).peak_bytes

    here = peak(rows, longest, weights)
    assert here <= peak(rows + 1, longest, weights)
    assert here <= peak(rows, longest + 1, weights)
    assert here + 1 == peak(rows, longest, weights + 1)
    assert here < peak(rows, longest, weights, LARGE)
    assert here == weights + pool_of(rows, longest).blocks * block_bytes(SMALL, 2) + activations(rows, longest)


def activations(rows: int, longest: int) -> int:
    return vllm_footprint(SMALL, pool_of(rows, longest), weight_bytes=0, itemsize=2).activation_bytes


def test_activations_stay_small_beside_a_song_of_ten_minutes() -> None:
    pool = pool_of(rows=2, longest=3_200 + 3_000)
    taken = vllm_footprint(LARGE, pool, weight_bytes=0, itemsize=2)
    assert taken.cache_bytes > 1.7 * GIB
    assert WORKSPACE_BYTES < taken.activation_bytes < 256 * MIB
