"""Two ways to compute the same thing, timed alternately in one process, so that a busy machine slows both."""

from collections.abc import Callable
from typing import Any


def versus(benchmark: Any, what: str, ours: Callable[[], Any], theirs: Callable[[], Any], *, rounds: int) -> float:
    """The speed-up of `ours`; the best round of each counts. Recorded for the page of results."""
    ours()
    others: list[float] = []

    def time_theirs() -> None:
        started = benchmark._timer()
        theirs()
        others.append(benchmark._timer() - started)

    benchmark.pedantic(ours, setup=time_theirs, rounds=rounds)
    best = benchmark.stats.stats.min
    ratio = min(others) / best
    benchmark.extra_info.update(what=what, ours_seconds=best, theirs_seconds=min(others), ratio=ratio)
    print(f"\n{what}: {best:.4f} s against {min(others):.4f} s, {ratio:.2f} x")  # noqa: T201
    return ratio
