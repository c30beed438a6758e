"""What was found under one cap holds under all caps under which the allocator does the same."""

from typing import Generic, TypeVar

KeptResult = TypeVar("KeptResult")


class UnderCaps(Generic[KeptResult]):
    """Results of replays of one trace, each for the caps from `held`, the most that was held, to below `denied`.

    By induction the allocator under such a cap is in the same state before each request: what was granted led to at
    most `held` bytes and is granted again, and what was denied needed at least `denied` bytes and is denied again.
    """

    def __init__(self) -> None:
        self._found: list[tuple[int, int, KeptResult]] = []

    def find(self, cap_bytes: int) -> KeptResult | None:
        """Return what holds under a cap; None if it is not known."""
        return next((found for held, denied, found in self._found if held <= cap_bytes < denied), None)

    def keep(self, held: int, denied: int, found: KeptResult) -> None:
        """Keep a result of a replay that held at most `held` bytes, and was denied `denied` bytes or more."""
        self._found.append((held, denied, found))
