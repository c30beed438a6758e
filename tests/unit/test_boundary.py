"""The longest song is the one that trying every length finds, in few probes, for any known answers."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.knobs import Knobs
from acestep.units import GIB, MIB
from calibrate.campaign.boundary import SIMULATED, Boundary, Method, find_longest
from calibrate.executors.questions import Question
from calibrate.record.measurement import RecordedProbe
from calibrate.search import Certainty
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.fakes import result

GRID = tuple(range(60, 601, 60))
CAP = 4 * GIB


class Card:
    """Holds a GiB of weights and so much for each second of each song; `pocket` is a length that fails all the same."""

    def __init__(self, per_second: int, *, pocket: int = 0, spurious_rate: float = 0.0, seed: int = 0) -> None:
        self.asked: list[Question] = []
        self._per_second = per_second
        self._pocket = pocket
        self._spurious_rate = spurious_rate
        self._chance = random.Random(seed)  # noqa: S311 a test's dice

    def need(self, batch: int, seconds: float) -> int:
        return GIB + int(batch * seconds * self._per_second)

    def fits(self, batch: int, seconds: float) -> bool:
        return self.need(batch, seconds) <= CAP and seconds != self._pocket

    def look(self, question: Question) -> RecordedProbe:
        self.asked.append(question)
        workload = question.workload
        fits = self.fits(workload.batch, workload.duration_s) and self._chance.random() >= self._spurious_rate
        verdict = Verdict.FITS if fits else Verdict.OOM
        found = result(verdict, workload, CAP, peak=self.need(workload.batch, workload.duration_s))
        return RecordedProbe.of(question.knobs, workload, found, timed=False)

    def longest(self, batch: int) -> int:
        return max((seconds for seconds in GRID if self.fits(batch, seconds)), default=0)


def question(batch: int) -> Question:
    return Question(knobs=Knobs(), workload=Workload(batch=batch, duration_s=600.0), cap_bytes=CAP)


def found_on(card: Card, batch: int, known: Sequence[RecordedProbe] = (), method: Method = SIMULATED) -> Boundary:
    return find_longest(card.look, question(batch), GRID, known, method)


growths = st.integers(1, 80 * MIB)
batches = st.sampled_from([1, 2, 4, 8])


@given(growths, batches)
def test_the_boundary_equals_an_exhaustive_search_and_both_sides_are_probed(per_second: int, batch: int) -> None:
    card = Card(per_second)
    found = found_on(card, batch)
    assert found.seconds == card.longest(batch)
    assert found.certainty is Certainty.CERTIFIED
    sides = {"fits": found.fits, "fails": found.fails}
    at = {side: [] if asked is None else [asked.workload.duration_s] for side, asked in sides.items()}
    assert at["fits"] == ([found.seconds] if found.seconds else [])
    assert at["fails"] == ([] if found.seconds == GRID[-1] else [found.seconds + 60])
    assert list(found.asked) == card.asked
    assert len(card.asked) == len(set(card.asked))


@given(growths, batches)
def test_one_probe_suffices_if_everything_fits_and_two_if_nothing_does(per_second: int, batch: int) -> None:
    card = Card(per_second)
    found = found_on(card, batch)
    if found.seconds == GRID[-1]:
        assert len(card.asked) == 1
    if found.seconds == 0:
        assert len(card.asked) == 2


@given(st.integers(MIB // 2, 10 * MIB))
def test_a_batch_is_found_in_three_probes_once_smaller_ones_have_shown_how_it_grows(per_second: int) -> None:
    card = Card(per_second)
    known = [card.look(asked) for asked in found_on(card, 1).asked]
    card.asked.clear()
    assert found_on(card, 2, known).seconds == card.longest(2)
    assert len(card.asked) <= (3 if len(known) > 1 else 5)


@given(growths, batches, st.floats(0.9, 1.1), st.integers(0, 2**32))
def test_with_spurious_failures_the_answer_is_right_and_no_question_repeats(
    per_second: int, batch: int, off: float, seed: int
) -> None:
    card = Card(per_second, spurious_rate=0.05, seed=seed)
    method = Method(forecast=lambda _, workload: int(card.need(workload.batch, workload.duration_s) * off))
    found = found_on(card, batch, method=method)
    assert found.seconds == card.longest(batch)
    assert len(card.asked) == len(set(card.asked))
    if found.fails is not None:
        assert found.fails.attempt == 5, "six failures in a row"


@pytest.mark.parametrize("pocket", [300, 360, 420])
def test_answers_that_contradict_each_other_are_uncertain_and_count_as_no_fit(pocket: int) -> None:
    card = Card(3 * GIB // 570, pocket=pocket)
    known = [
        card.look(Question(knobs=Knobs(), workload=Workload(batch=1, duration_s=s), cap_bytes=CAP)) for s in (60, 600)
    ]
    method = Method(spurious_rate=0.0, forecast=lambda _, w: GIB + int(w.duration_s * 3 * GIB / (pocket + 30)))
    found = found_on(card, 1, known, method)
    assert found.certainty is Certainty.UNCERTAIN
    assert (found.seconds, found.fits) == (0, None)
    assert found.fails is not None
