"""Two ways to compute the same thing, timed alternately in one process, so that a busy machine slows both."""

from collections.abc import Callable
from typing import Any

from tests.benchmarks.peak_memory import peak_alone


def versus(
    benchmark: Any,
    what: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    *,
    rounds: int,
    warm: bool = True,
    memory: bool = False,
) -> float:
    """The speed-up of `ours`; the best round of each counts. Recorded for the page of results.

    A `warm` comparison runs ours once before. With `memory`, the peak of one more run of each side is recorded too.
    """
    peaks = {"ours_bytes": peak_alone(ours), "theirs_bytes": peak_alone(theirs)} if memory else {}
    if warm:
        ours()
    seconds: list[float] = []

    def time_theirs() -> None:
        started = benchmark._timer()
        theirs()
        seconds.append(benchmark._timer() - started)

    benchmark.pedantic(ours, setup=time_theirs, rounds=rounds)
    best = benchmark.stats.stats.min
    ratio = min(seconds) / best
    benchmark.extra_info.update(what=what, ours_seconds=best, theirs_seconds=min(seconds), ratio=ratio, **peaks)
    print(f"\n{what}: {best:.4f} s against {min(seconds):.4f} s, {ratio:.2f} x {peaks or ''}")  # noqa: T201
    return ratio
