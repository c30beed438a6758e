"""A process with one card of this machine; it ends when its parent closes the channel.

python -m calibrate.executors.card_process FD

The first message is a `WorkerSetup`, which the report of the card answers; every other message is a task.
"""

import sys

from calibrate.executors.card_worker import CardWorker
from calibrate.executors.worker import answer_all


class OneCard:
    """Opens the card of the first message, and answers all others with it."""

    def __init__(self, worker: type[CardWorker] = CardWorker) -> None:
        self._opening = worker
        self._opened: CardWorker | None = None

    def __call__(self, message: bytes) -> bytes:
        """Raises `NotMeasuredError` if there is no such card."""
        if self._opened is None:
            self._opened = self._opening(message)
            return self._opened.report()
        return self._opened.answer(message)


if __name__ == "__main__":
    answer_all(int(sys.argv[1]), OneCard)
