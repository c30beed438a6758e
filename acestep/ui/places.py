"""The order in which the visitors' runs wait for each other."""

import threading

from acestep.serving.visits import Visit


class Places:
    """The runs that wait, by their visits: the next one first."""

    def __init__(self) -> None:
        self._waiting: list[Visit] = []
        self._lock = threading.Lock()

    def join(self, visit: Visit) -> None:
        """Note that a run of a visit joins the queue."""
        with self._lock:
            self._waiting.append(visit)

    def leave(self, visit: Visit, *, with_all: bool = False) -> None:
        """Note that a visit's next run no longer waits, or that none of its runs does."""
        with self._lock:
            if with_all:
                self._waiting = [other for other in self._waiting if other is not visit]
            elif visit in self._waiting:
                self._waiting.remove(visit)

    def of(self, visit: Visit) -> int:
        """Return the place of a visit's next run: 1 for the next of all; 0 if none waits."""
        with self._lock:
            return self._waiting.index(visit) + 1 if visit in self._waiting else 0
