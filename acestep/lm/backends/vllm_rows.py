"""The rows of guidance pairs inside vLLM's batch, and the one token that both rows of a pair are made to write.

Needs no vLLM: `PairedRows` has the methods of a `vllm.v1.sample.logits_processor.LogitsProcessor`, which `start` in
`vllm_engine` declares it to be.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from acestep.lm.job import Job
from acestep.lm.sampling import Chooser, Draft, Spans, guide


class BatchRow(NamedTuple):
    """A sequence of vLLM's batch: that of a draft with its wishes, or the one without them."""

    draft: int
    wishes: bool


def rows_of(draft: int, job: Job) -> list[BatchRow]:
    """The sequences that are read to write one draft."""
    return (
        [BatchRow(draft, wishes=True), BatchRow(draft, wishes=False)] if job.guided else [BatchRow(draft, wishes=True)]
    )


class Desk:
    """What an engine writes now: `drafts` by their number, and who decides their tokens."""

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser
        self.drafts: dict[int, Draft] = {}


class PairedRows:
    """Chooses the next token of every draft whose rows are all in the batch, and leaves them nothing else to write.

    Other rows are left alone: theirs is not the time to write, and whoever drives the engine drops their tokens. What
    is chosen depends on nothing but a draft and its logits, so it may be chosen again. Subclassed with the `desk` of
    one engine.
    """

    desk: Desk

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ARG002 as called
        self._rows: dict[int, BatchRow] = {}

    @classmethod
    def validate_params(cls, params: Any) -> None:
        """Any parameters will do."""

    def is_argmax_invariant(self) -> bool:
        """No: it decides."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the batch: requests leave, come and change places, in this order."""
        if batch_update is None:
            return
        for index in batch_update.removed:
            self._rows.pop(index, None)
        for index, params, *_ in batch_update.added:
            self._set(index, BatchRow(*params.extra_args["row"]) if params.extra_args else None)
        for source, target, direction in batch_update.moved:
            leaving, arriving = self._rows.pop(target, None), self._rows.pop(source, None)
            self._set(target, arriving)
            if direction.name == "SWAP":
                self._set(source, leaving)

    def apply(self, logits: Tensor) -> Tensor:
        """The logits [rows, vocabulary], float32, changed in place."""
        place = {row: index for index, row in self._rows.items()}
        drafts = self.desk.drafts
        ready = [i for i, draft in drafts.items() if all(row in place for row in rows_of(i, draft.job))]
        tokens = {i: drafts[i].allowed.spans[0].start for i in ready if drafts[i].allowed.forced}
        undecided = sorted((i for i in ready if i not in tokens), key=self._kind)
        for (_, spans), alike in groupby(undecided, key=self._kind):
            tokens |= self._choose(logits, spans, place, list(alike))
        rows = [(place[row], token) for i, token in tokens.items() for row in rows_of(i, drafts[i].job)]
        if rows:
            at, chosen = torch.tensor(rows, device=logits.device).unbind(1)
            logits[at] = -torch.inf
            logits[at, chosen] = 0.0
        return logits

    def _kind(self, draft: int) -> tuple[bool, tuple[tuple[int, int], ...]]:
        """Drafts of one kind are decided together."""
        wanted = self.desk.drafts[draft]
        return wanted.job.guided, tuple((ids.start, ids.stop) for ids in wanted.allowed.spans)

    def _choose(
        self, logits: Tensor, edges: Sequence[tuple[int, int]], place: dict[BatchRow, int], numbers: list[int]
    ) -> dict[int, int]:
        spans = tuple(range(*edge) for edge in edges)
        drafts = [self.desk.drafts[i] for i in numbers]
        values = _over(logits, spans, [place[BatchRow(i, wishes=True)] for i in numbers])
        if drafts[0].job.guided:
            without = _over(logits, spans, [place[BatchRow(i, wishes=False)] for i in numbers])
            scales = torch.tensor([[draft.job.sampling.guidance] for draft in drafts], device=logits.device)
            values = guide(values, without, scales)
        return dict(zip(numbers, self.desk.chooser.choose(values, spans, drafts), strict=True))

    def _set(self, index: int, row: BatchRow | None) -> None:
        if row is None:
            self._rows.pop(index, None)
        else:
            self._rows[index] = row


def _over(logits: Tensor, spans: Spans, rows: Sequence[int]) -> Tensor:
    """The logits [rows, ids] of the ids in `spans`."""
    at = torch.tensor(rows, device=logits.device)
    return torch.cat([logits[:, ids.start : ids.stop][at] for ids in spans], dim=-1)
