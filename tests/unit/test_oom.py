"""A shortage is recognised by its source and the beginning of its message, so that quoted lyrics never end a search."""

import builtins
import json
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.probes.oom import Shortage, classify, classify_text
from calibrate.verdict import Verdict

CORPUS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "fixtures" / "oom_corpus.json").read_text())
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB."


def raised(name: str, text: str) -> BaseException:
    """An error of a class that need not be installed: ``module.Name``, or ``module.Name|Base`` where it is no
    `RuntimeError`."""
    path, _, base = name.partition("|")
    module, _, last = path.rpartition(".")
    known = getattr(builtins, base or last, RuntimeError)
    kind = known if not module else type(last, (known,), {"__module__": module})
    error: BaseException = kind(text)
    return error


def chain(case: dict[str, Any]) -> BaseException:
    errors = [raised(name, text) for name, text in case["raised"]]
    for outer, inner in pairwise(errors):
        setattr(outer, f"__{case['link']}__", inner)
    return errors[0]


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case["name"])
def test_every_case_of_the_corpus_is_told_apart(case: dict[str, Any]) -> None:
    found = classify(chain(case), case["said"]) if case["raised"] else classify_text(case["said"])
    assert found is Shortage(case["shortage"])


def test_the_corpus_has_every_kind_and_half_of_it_is_about_something_else() -> None:
    counted = Counter(case["shortage"] for case in CORPUS)
    assert len(CORPUS) >= 40
    assert set(counted) == set(Shortage)
    assert counted["none"] >= len(CORPUS) // 2


def test_only_a_shortage_of_the_card_is_a_verdict_about_the_card() -> None:
    says_nothing = {shortage for shortage in Shortage if shortage.verdict is Verdict.CRASHED}
    assert says_nothing == {Shortage.NONE, Shortage.HOST}
    assert {shortage.verdict for shortage in Shortage} == {Verdict.CRASHED, Verdict.OOM}


@pytest.mark.parametrize(
    "case", [c for c in CORPUS if len(c["raised"]) == 1 and not c["said"]], ids=lambda c: c["name"]
)
def test_a_child_that_dies_of_an_error_says_the_same_as_the_error(case: dict[str, Any]) -> None:
    [[name, text]] = case["raised"]
    died = f'Traceback (most recent call last):\n  File "x.py", line 1, in f\n{name.partition("|")[0]}: {text}'
    died = died if text else died.removesuffix(": ")
    assert classify_text(died) is Shortage(case["shortage"])


@given(st.text(), st.sampled_from([ValueError, KeyError, RuntimeError, TypeError]))
def test_quoted_text_never_counts_as_a_shortage(words: str, kind: type[Exception]) -> None:
    for quoted in (f"{words} {OUT_OF_MEMORY}", OUT_OF_MEMORY, f"{words}\n{OUT_OF_MEMORY}"):
        assert classify(kind(f"cannot use the caption {quoted!r}")) is Shortage.NONE


@given(st.integers(1, 5), st.sampled_from(["__cause__", "__context__"]), st.booleans())
def test_an_error_is_found_however_deep_and_in_circles(depth: int, link: str, circle: bool) -> None:
    innermost = RuntimeError(OUT_OF_MEMORY)
    error: BaseException = innermost
    for number in range(depth):
        outer = ValueError(f"wrapper {number}")
        setattr(outer, link, error)
        error = outer
    if circle:
        innermost.__context__ = error
    assert classify(error) is Shortage.ALLOCATOR
    assert classify(ExceptionGroup("several", [KeyError("x"), RuntimeError(OUT_OF_MEMORY)])) is Shortage.ALLOCATOR


@given(st.text())
def test_any_last_output_is_classified_without_an_error(words: str) -> None:
    assert classify_text(words) in Shortage


@pytest.mark.parametrize(
    "words",
    ["x" * 200_000, "Error: " * 20_000, "\n" * 16_384, "[enforce fail at " + "] " * 100_000, "\u2028" * 16_384],
    ids=["one word", "errors in errors", "empty lines", "brackets", "other line ends"],
)
def test_endless_words_are_classified_without_an_error_and_in_time(words: str) -> None:
    started = time.monotonic()
    found = {classify(RuntimeError(words)), classify_text(words), classify(RuntimeError("relayed"), words)}
    assert found == {Shortage.NONE}
    assert time.monotonic() - started < 5


def test_a_shortage_in_a_group_of_errors_is_found_beside_others() -> None:
    inner = ExceptionGroup("two workers failed", [ValueError("a caption"), RuntimeError(OUT_OF_MEMORY)])
    assert classify(ExceptionGroup("the run failed", [KeyError("x"), inner])) is Shortage.ALLOCATOR
    assert classify(ExceptionGroup(OUT_OF_MEMORY, [ValueError(OUT_OF_MEMORY)])) is Shortage.NONE
