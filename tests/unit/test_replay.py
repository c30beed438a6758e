"""Whether a trace fits under a cap, and from which cap on it always does."""

from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.limits.workspace import SEGMENT_GRAIN
from acestep.units import MIB
from calibrate.probes.simulated.played import Played
from calibrate.probes.simulated.replay import replay, smallest_cap
from calibrate.probes.simulated.trace import Trace, peak_bytes, stage_trace, stages

SIZES = (0, 700, MIB // 2, MIB, MIB + 1, 2 * MIB, 3 * MIB, 9 * MIB, 10 * MIB, 12 * MIB, 13 * MIB, 20 * MIB, 33 * MIB)

OPERATIONS = st.lists(st.one_of(st.sampled_from(SIZES), st.integers(-30, -1)), max_size=40)
"""Sizes to allocate; a negative number frees one of the live allocations, or empties the cache where it is -30, or is
`BEGIN` or `END`.
"""

BEGIN, END = -29, -28
"""Of a stage."""


def build(operations: list[int]) -> Trace:
    """A trace in which no stage is open at first; `BEGIN` opens one if none is open, and `END` closes it."""
    trace = Trace()
    live: list[int] = []
    is_open = False
    for operation in operations:
        if operation >= 0:
            live.append(trace.alloc(operation))
        elif operation == -30:
            trace.empty_cache()
        elif operation in (BEGIN, END):
            if is_open and operation == END:
                trace.end_stage()
                is_open = False
            elif not is_open and operation == BEGIN:
                trace.begin_stage(str(len(trace)))
                is_open = True
        elif live:
            trace.free(live.pop(operation % len(live)))
    return trace


def not_monotone() -> Trace:
    """It fits at 52 MiB and fails at 54, where 54 leaves room for a segment that later stands in the way."""
    trace = Trace()
    trace.free(trace.alloc(12 * MIB))
    b = trace.alloc(20 * MIB)
    c = trace.alloc(20 * MIB)
    trace.free(b)
    trace.free(c)
    for n_bytes in (MIB // 2, 2 * MIB, 12 * MIB, 12 * MIB, 12 * MIB):
        trace.alloc(n_bytes)
    return trace


def test_more_memory_can_fail_where_less_fits() -> None:
    trace = not_monotone()
    assert replay(trace, 52 * MIB).fits
    assert not replay(trace, 54 * MIB).fits
    assert smallest_cap(trace) > 54 * MIB


@given(operations=OPERATIONS)
def test_every_cap_from_the_uncapped_reserved_peak_on_fits_and_none_below_the_allocated_peak(
    operations: list[int],
) -> None:
    trace = build(operations)
    uncapped = replay(trace)
    assert uncapped.fits
    for cap in (uncapped.peak_reserved, uncapped.peak_reserved + 1, uncapped.peak_reserved * 2):
        assert replay(trace, cap).fits
        assert replay(trace, cap).peak_reserved == uncapped.peak_reserved
    needed = peak_bytes(trace)
    for cap in (needed - 1, needed // 2):
        assert needed == 0 or not replay(trace, cap).fits


@settings(max_examples=200)
@given(operations=OPERATIONS)
def test_the_smallest_cap_is_what_trying_every_cap_of_the_grid_finds(operations: list[int]) -> None:
    trace = build(operations)
    top = replay(trace).peak_reserved
    failing = [cap for cap in range(0, top + 1, SEGMENT_GRAIN) if not replay(trace, cap).fits]
    assert smallest_cap(trace) == max(failing, default=-SEGMENT_GRAIN) + SEGMENT_GRAIN


def test_the_smallest_cap_lies_above_an_island_of_caps_that_fit() -> None:
    trace = not_monotone()
    answer = smallest_cap(trace)
    assert not replay(trace, answer - SEGMENT_GRAIN).fits
    assert all(replay(trace, answer + n * SEGMENT_GRAIN).fits for n in range(20))


def test_a_trace_without_allocations_needs_no_memory() -> None:
    assert smallest_cap(Trace()) == 0
    assert smallest_cap(build([0, 0, -1])) == 0


def staged() -> Trace:
    """Three stages; only the second needs more than 24 MiB."""
    trace = Trace()
    trace.alloc(12 * MIB, "weights")
    trace.begin_stage("encode")
    trace.free(trace.alloc(12 * MIB))
    trace.end_stage()
    trace.begin_stage("denoise")
    trace.free(trace.alloc(512))
    trace.free(trace.alloc(30 * MIB, "latents"))
    trace.end_stage()
    trace.empty_cache()
    trace.begin_stage("decode")
    trace.alloc(5 * MIB)
    trace.end_stage()
    return trace


def test_stages_report_the_peaks_since_they_began() -> None:
    result = replay(staged())
    assert result.stages == {
        "encode": (24 * MIB, 24 * MIB),
        "denoise": (42 * MIB, 56 * MIB),
        "decode": (17 * MIB, 32 * MIB),
    }
    assert (result.peak_allocated, result.peak_reserved) == (42 * MIB, 56 * MIB)
    assert (result.final_allocated, result.final_reserved) == (17 * MIB, 32 * MIB)


def test_a_refusal_names_its_stage_event_and_owner_and_ends_the_replay() -> None:
    trace = staged()
    result = replay(trace, 40 * MIB)
    assert not result.fits
    assert result.refusal is not None
    assert (result.refusal.stage, result.refusal.owner) == ("denoise", "latents")
    assert result.refusal.requested == trace.sizes[result.refusal.event] == 30 * MIB
    assert list(result.stages) == ["encode", "denoise"]
    assert result.stages["denoise"][1] <= 40 * MIB


def test_a_refusal_outside_every_stage_has_none() -> None:
    result = replay(staged(), MIB)
    assert result.refusal is not None
    assert (result.refusal.event, result.refusal.stage, result.stages) == (0, None, {})


def test_a_stage_alone_does_not_pay_for_the_stages_before_it() -> None:
    trace = staged()
    caps = {stage.name: smallest_cap(stage_trace(trace, stage.name)) for stage in stages(trace)}
    assert caps == {"encode": 24 * MIB, "denoise": 42 * MIB, "decode": 32 * MIB}


@settings(max_examples=200)
@given(operations=OPERATIONS, caps=st.lists(st.integers(0, 120), min_size=2, max_size=8))
def test_what_was_found_under_one_cap_is_only_told_of_caps_where_a_replay_finds_it(
    operations: list[int], caps: list[int]
) -> None:
    trace = build(operations)
    played = Played(trace=trace, loops=(), work={})
    for cap in caps:
        assert played.under(cap * MIB) == replay(trace, cap * MIB, ())


@settings(max_examples=200)
@given(operations=OPERATIONS, more=OPERATIONS, caps=st.lists(st.integers(0, 120), min_size=2, max_size=8))
def test_a_run_that_goes_on_from_the_end_of_its_beginning_is_the_whole_run(
    operations: list[int], more: list[int], caps: list[int]
) -> None:
    beginning, whole = build([BEGIN, *operations, END]), build([BEGIN, *operations, END, *more])
    played = Played(trace=beginning, loops=(), work={})
    for cap in caps:
        goes_on = played.end(cap * MIB).resumed(whole, cap * MIB)
        assert goes_on.play((), len(beginning)) == replay(whole, cap * MIB, ())
