"""What a trace remembers, and what can be read off it without an allocator."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.units import KIB, MIB, ceil_div
from calibrate.probes.simulated.trace import (
    ACTIVATIONS,
    EMPTY,
    FREE,
    StageSpan,
    Trace,
    peak_bytes,
    stage_trace,
    stage_usage,
    stages,
)


def two_stages() -> Trace:
    """Weights of 40 MiB stay; `first` peaks at 40 + 6, `second` at 40 + 3 + 8 and leaves the weights."""
    trace = Trace()
    loading = trace.alloc(MIB)
    trace.alloc(40 * MIB, "transformer")
    trace.free(loading)
    trace.begin_stage("first")
    kept = trace.alloc(3 * MIB)
    trace.free(trace.alloc(2 * MIB))
    trace.free(trace.alloc(3 * MIB, "vae"))
    trace.end_stage()
    trace.empty_cache()
    trace.begin_stage("second")
    trace.free(trace.alloc(7 * MIB + 1, "cudnn"))
    trace.free(kept)
    trace.alloc(MIB)
    trace.end_stage()
    return trace


def test_a_freed_id_goes_to_a_later_allocation_the_lowest_first() -> None:
    trace = Trace()
    ids = [trace.alloc(KIB) for _ in range(4)]
    trace.free(ids[2])
    trace.free(ids[1])
    assert [trace.alloc(KIB) for _ in range(3)] == [ids[1], ids[2], 4]
    assert trace.n_slots == 5


def test_a_loop_that_allocates_alike_repeats_its_events_exactly() -> None:
    trace = Trace()
    trace.alloc(MIB)
    for _ in range(3):
        first, second = trace.alloc(KIB), trace.alloc(2 * KIB)
        trace.free(first)
        trace.free(second)
    turns = [(trace.sizes[at : at + 4], trace.slots[at : at + 4]) for at in (1, 5, 9)]
    assert turns[0] == turns[1] == turns[2]


def test_misuse_is_refused_with_what_was_wrong() -> None:
    trace = Trace()
    block = trace.alloc(KIB)
    trace.free(block)
    with pytest.raises(ValueError, match="not live"):
        trace.free(block)
    with pytest.raises(ValueError, match="negative"):
        trace.alloc(-1)
    with pytest.raises(ValueError, match="no stage open"):
        trace.end_stage()
    trace.begin_stage("encode")
    with pytest.raises(ValueError, match="inside 'encode'"):
        trace.begin_stage("denoise")
    trace.end_stage()
    with pytest.raises(ValueError, match="second time"):
        trace.begin_stage("encode")
    with pytest.raises(KeyError, match="encode"):
        stage_trace(trace, "decode")


def test_stages_are_found_where_they_began_and_ended() -> None:
    trace = two_stages()
    assert stages(trace) == (StageSpan(name="first", start=3, stop=9), StageSpan(name="second", start=11, stop=16))


def test_a_stage_cut_short_ends_with_the_trace() -> None:
    trace = Trace()
    trace.begin_stage("denoise")
    trace.alloc(MIB)
    assert stages(trace) == (StageSpan(name="denoise", start=0, stop=2),)
    assert stage_usage(trace)[0].peak_bytes == MIB


def test_usage_says_what_was_live_at_the_start_and_at_the_peak_and_whose_it_was() -> None:
    first, second = stage_usage(two_stages())
    assert first.live_at_start == {"transformer": 40 * MIB}
    assert first.live_at_peak == {"transformer": 40 * MIB, ACTIVATIONS: 3 * MIB, "vae": 3 * MIB}
    assert first.peak_bytes == sum(first.live_at_peak.values())
    assert first.highest == {"transformer": 40 * MIB, ACTIVATIONS: 5 * MIB, "vae": 3 * MIB}
    assert second.live_at_start == {"transformer": 40 * MIB, ACTIVATIONS: 3 * MIB}
    assert second.live_at_peak == {"transformer": 40 * MIB, ACTIVATIONS: 3 * MIB, "cudnn": 7 * MIB + 512}


def test_owners_left_out_of_the_count_move_the_peak_but_keep_their_own() -> None:
    _, second = stage_usage(two_stages(), uncounted={"cudnn"})
    assert second.peak_bytes == 43 * MIB
    assert second.live_at_peak == {"transformer": 40 * MIB, ACTIVATIONS: 3 * MIB}
    assert second.highest["cudnn"] == 7 * MIB + 512


def test_an_empty_trace_holds_nothing() -> None:
    trace = Trace()
    assert (stages(trace), stage_usage(trace), peak_bytes(trace)) == ((), (), 0)
    trace.begin_stage("encode")
    trace.end_stage()
    [usage] = stage_usage(stage_trace(trace, "encode"))
    assert (usage.peak_bytes, usage.live_at_peak) == (0, {})


def test_a_stage_alone_starts_with_what_was_live_in_its_old_order_and_keeps_its_events() -> None:
    trace = two_stages()
    alone = stage_trace(trace, "second")
    assert list(alone.sizes[:2]) == [40 * MIB, 3 * MIB]
    assert stages(alone) == (StageSpan(name="second", start=2, stop=7),)
    assert stage_usage(alone) == stage_usage(trace)[1:]


@given(
    operations=st.lists(st.tuples(st.integers(-40, 4 * MIB), st.sampled_from(["a", "b", "c"])), max_size=80),
    begin=st.integers(0, 40),
)
def test_usage_agrees_with_a_count_made_event_by_event(operations: list[tuple[int, str]], begin: int) -> None:
    trace = Trace()
    sizes: dict[int, tuple[int, str]] = {}
    peaks: list[int] = []
    alone: list[int] = []
    for at, (size, owner) in enumerate(operations):
        if at == begin:
            trace.begin_stage("stage")
            peaks.append(sum(n for n, _ in sizes.values()))
            alone = [n for n, _ in sizes.values()]
        if size >= 0:
            sizes[trace.alloc(size, owner)] = (ceil_div(size, 512) * 512, owner)
        elif size == EMPTY:
            trace.empty_cache()
        elif sizes:
            block = sorted(sizes)[size % len(sizes)]
            trace.free(block)
            del sizes[block]
        peaks.append(sum(n for n, _ in sizes.values()))
    assert peak_bytes(trace) == max(peaks, default=0)
    for usage in stage_usage(trace):
        assert usage.peak_bytes == max(peaks[begin:])
        assert usage.peak_bytes == sum(usage.live_at_peak.values())
        assert sum(usage.live_at_start.values()) == sum(alone)
        assert stage_usage(stage_trace(trace, "stage")) == (usage,)
    assert sum(1 for size in trace.sizes if size >= 0) - list(trace.sizes).count(FREE) == len(sizes)
