"""A boundary is exact, proven on both sides and found in few probes, whatever was predicted; `make soak` asks 10^5."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.units import GIB
from calibrate.search import (
    CHANCE_OF_ERROR,
    Certainty,
    PointResult,
    SearchPoints,
    failures_needed,
    find_boundary,
)
from tests.oracles import Oracle, growing, most_points, oracle, shrinking, survey

SAMPLE = range(1000)


def test_without_noise_a_tenth_of_error_in_the_prior_costs_four_points_at_most() -> None:
    found = survey(SAMPLE, spurious_rate=0.0, prior_error=0.1)
    assert (found.wrong, found.too_long, found.uncertain) == (0, 0, 0)
    assert found.mean_points <= 4.0


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.05])
def test_spurious_failures_never_move_a_boundary(rate: float) -> None:
    found = survey(SAMPLE, spurious_rate=rate, prior_error=0.5)
    assert (found.wrong, found.too_long, found.uncertain) == (0, 0, 0)


def test_what_fits_behind_a_failure_is_called_uncertain_once_it_was_seen() -> None:
    found = survey(SAMPLE, spurious_rate=0.0, prior_error=0.1, pocket=True)
    assert (found.false_proofs, found.unreported, found.too_long) == (0, 0, 0)
    assert found.uncertain > 0


@settings(max_examples=100)
@given(
    st.lists(st.integers(0, 2**36), min_size=1, max_size=80),
    st.lists(st.integers(1, 2**36), min_size=80, max_size=80),
    st.integers(1, 2**36),
    st.booleans(),
)
def test_no_prediction_is_bad_enough_for_a_wrong_answer(
    needs: list[int], predicted: list[int], cap: int, measured: bool
) -> None:
    needs.sort()
    line = growing(predicted[: len(needs)], cap)
    seen: dict[int, bool] = {}

    def ask(point: int) -> PointResult:
        seen[point] = needs[point] <= cap
        return PointResult(fits=seen[point], peak_bytes=needs[point] if measured and seen[point] else 0)

    found = find_boundary(line, ask, spurious_rate=0)
    assert found.fitting == sum(need <= cap for need in needs)
    assert len(seen) <= most_points(len(needs))
    assert found.fitting == 0 or seen[found.fitting - 1]
    assert found.fitting == len(needs) or seen[found.fitting] is False


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05]))
@settings(max_examples=50)
def test_the_same_answers_lead_to_the_same_boundary(seed: int, rate: float) -> None:
    drawn = oracle(seed, spurious_rate=rate)
    assert find_boundary(drawn.line, drawn.asker()) == find_boundary(drawn.line, drawn.asker())


def test_a_failing_point_is_asked_until_chance_is_ruled_out_and_a_fit_once() -> None:
    for rate in (0.01, 0.02, 0.05, 0.1, 0.3):
        needed = failures_needed(rate)
        assert rate**needed < CHANCE_OF_ERROR <= rate ** (needed - 1)
    asked: list[int] = []

    def ask(point: int) -> PointResult:
        asked.append(point)
        return PointResult(fits=point < 1, peak_bytes=GIB)

    found = find_boundary(growing([GIB, 5 * GIB], 2 * GIB), ask)
    assert (found.fitting, found.certainty) == (1, Certainty.CERTIFIED)
    assert asked.count(0) == 1
    assert asked.count(1) == failures_needed(0.05) == 6
    assert len(asked) == 7


def test_a_card_that_never_errs_is_asked_once_a_point() -> None:
    asked: list[int] = []

    def ask(point: int) -> PointResult:
        asked.append(point)
        return PointResult(fits=point < 1, peak_bytes=0)

    assert find_boundary(growing([GIB, 5 * GIB], 2 * GIB), ask, 0).fitting == 1
    assert sorted(asked) == [0, 1]


def test_a_fit_after_failures_is_a_fit_and_nothing_more_is_asked() -> None:
    answers = iter([False, False, True])
    found = find_boundary(growing([GIB], 2 * GIB), lambda _: PointResult(fits=next(answers), peak_bytes=0))
    assert (found.fitting, next(answers, None)) == (1, None)


def test_a_failure_that_surprises_with_a_fit_behind_it_is_uncertain_and_the_careful_side_is_reported() -> None:
    needs = [tenth * GIB // 10 for tenth in (10, 12, 14, 16, 99, 18, 30)]
    line = growing([tenth * GIB // 10 for tenth in (10, 12, 14, 16, 18, 25, 30)], 19 * GIB // 10)
    drawn = Oracle(line=line, needs=needs, spurious_rate=0.0, seed=0)
    found = find_boundary(line, drawn.asker(), 0)
    assert (found.fitting, found.certainty) == (4, Certainty.UNCERTAIN)


def test_caps_are_searched_downwards_to_the_smallest_that_carries_a_run() -> None:
    caps = [size * GIB for size in (24, 16, 12, 8, 6, 4)]
    line = shrinking(caps, 9 * GIB)
    asked: list[int] = []

    def ask(point: int) -> PointResult:
        asked.append(point)
        return PointResult(fits=caps[point] >= 8 * GIB, peak_bytes=7 * GIB)

    assert caps[find_boundary(line, ask, 0).fitting - 1] == 8 * GIB
    assert len(asked) <= 3


def test_a_line_needs_a_prediction_for_every_cap() -> None:
    for caps, predicted in (([], []), ([1], [1, 2])):
        with pytest.raises(ValueError, match="prediction per cap"):
            SearchPoints(caps=caps, predicted=predicted)
    with pytest.raises(ValueError, match="below 1"):
        failures_needed(1.0)
