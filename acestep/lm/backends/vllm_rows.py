"""The rows of guidance pairs inside vLLM's batch, which are made to write the same token.

Needs no vLLM: `PairedRows` has the methods of a `vllm.v1.sample.logits_processor.LogitsProcessor`, and `start` in
`vllm_engine` registers it as one.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from acestep.lm.job import Job
from acestep.lm.sampling import Chooser, Draft, Spans, guide


class BatchRow(NamedTuple):
    """One sequence of vLLM's batch: a draft with the user's wishes (conditional), or without them (unconditional)."""

    draft: int
    wishes: bool


def rows_of(draft: int, job: Job) -> list[BatchRow]:
    """Return the batch rows of one draft."""
    return (
        [BatchRow(draft, wishes=True), BatchRow(draft, wishes=False)] if job.guided else [BatchRow(draft, wishes=True)]
    )


class ActiveDrafts:
    """The drafts that an engine writes now, by number, and the chooser of their tokens."""

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser
        self.drafts: dict[int, Draft] = {}


class PairedRows:
    """A logits processor that chooses the next token of every draft whose rows are all in the batch.

    It leaves those rows no other token to write. Other rows are not changed: they are not to write yet, and the caller
    of the engine drops their tokens. A choice depends only on a draft and its logits, so it can be repeated. For each
    engine a subclass sets `active`.
    """

    active: ActiveDrafts

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ARG002 as called
        self._rows: dict[int, BatchRow] = {}

    @classmethod
    def validate_params(cls, params: Any) -> None:
        """Accept any parameters."""

    def is_argmax_invariant(self) -> bool:
        """Return False: this processor changes the most likely token."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Apply the batch's changes: removed, added and moved requests, in this order."""
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
        """Return the logits [rows, vocabulary], float32, changed in place."""
        place = {row: index for index, row in self._rows.items()}
        drafts = self.active.drafts
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
        """Return the key by which drafts are grouped; the drafts of a group are decided in one call."""
        wanted = self.active.drafts[draft]
        return wanted.job.guided, tuple((ids.start, ids.stop) for ids in wanted.allowed.spans)

    def _choose(
        self, logits: Tensor, edges: Sequence[tuple[int, int]], place: dict[BatchRow, int], numbers: list[int]
    ) -> dict[int, int]:
        spans = tuple(range(*edge) for edge in edges)
        drafts = [self.active.drafts[i] for i in numbers]
        values = _over(logits, spans, [place[BatchRow(i, wishes=True)] for i in numbers])
        if drafts[0].job.guided:
            without = _over(logits, spans, [place[BatchRow(i, wishes=False)] for i in numbers])
            scales = torch.tensor([[draft.job.sampling.guidance] for draft in drafts], device=logits.device)
            values = guide(values, without, scales)
        return dict(zip(numbers, self.active.chooser.choose(values, spans, drafts), strict=True))

    def _set(self, index: int, row: BatchRow | None) -> None:
        if row is None:
            self._rows.pop(index, None)
        else:
            self._rows[index] = row


def _over(logits: Tensor, spans: Spans, rows: Sequence[int]) -> Tensor:
    """Return the logits [rows, ids] of the ids in `spans`."""
    at = torch.tensor(rows, device=logits.device)
    return torch.cat([logits[:, ids.start : ids.stop][at] for ids in spans], dim=-1)
