"""The next token of every sequence, from the hidden states of their rows: logits, guidance, and the choice.

What does not depend on the hidden states is done before them: a card still computes the step meanwhile.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from acestep.devices.base import Device
from acestep.lm.forward import Decoder, SequenceRow
from acestep.lm.sampling import Chooser, Draft, Spans, guide

BRIDGED_IDS: Final = 4_096
"""If two allowed ranges are at most this many ids apart, logits are also computed for the ids between them: this is
cheaper than one more matrix product.
"""


class _Places(NamedTuple):
    """Where drafts are among the rows of a step, on the device.

    `rows` has the drafts that choose, guided ones first, then the unguided rows of these. `scales` [guided, 1] are
    those of guidance, None if no draft is guided.
    """

    rows: Tensor
    scales: Tensor | None


class NextTokens:
    """Chooses the tokens of `drafts`, the jobs of a cache, with the head of `decoder`."""

    def __init__(self, decoder: Decoder, device: Device, chooser: Chooser, drafts: Sequence[Draft]) -> None:
        self._decoder = decoder
        self._device = device
        self._chooser = chooser
        self._drafts = drafts
        self._known: tuple[object, _Places] | None = None

    def of(self, rows: Sequence[SequenceRow], states: Tensor) -> dict[int, int]:
        """Return the next token of every job in `rows`, whose hidden states are `states` [rows, width].

        Logits are computed only where the grammar leaves a choice.
        """
        drafts = self._drafts
        mine = [row.job for row in rows if row.wishes]
        tokens = {i: drafts[i].allowed.spans[0].start for i in mine if drafts[i].allowed.forced}
        open_jobs = sorted(set(mine) - tokens.keys(), key=lambda i: (not drafts[i].job.guided, i))
        if not open_jobs:
            return tokens
        choosing = [drafts[i] for i in open_jobs]
        spans, places = _covering(choosing), self._places(rows, open_jobs)
        logits = self._decoder.logits(states[places.rows], spans)
        if places.scales is not None:
            guided, unguided = logits[: len(places.scales)], logits[len(choosing) :]
            guided.copy_(guide(guided, unguided, places.scales))
        return tokens | dict(
            zip(open_jobs, self._chooser.choose(logits[: len(choosing)], spans, choosing), strict=True)
        )

    def _places(self, rows: Sequence[SequenceRow], open_jobs: Sequence[int]) -> _Places:
        """Return where the open jobs are among `rows`; copied to the device only when that has changed.

        A copy from ordinary memory waits until the card has computed all that was launched before.
        """
        asked = tuple(rows), tuple(open_jobs)
        if self._known is None or self._known[0] != asked:
            self._known = None
            place = {row: at for at, row in enumerate(rows)}
            scales = [[self._drafts[i].job.sampling.guidance] for i in open_jobs if self._drafts[i].job.guided]
            at = [place[SequenceRow(i, wishes=True)] for i in open_jobs]
            at += [place[SequenceRow(i, wishes=False)] for i in open_jobs[: len(scales)]]
            uploaded = self._device.upload(torch.tensor(at), "prompt")
            places = _Places(uploaded, self._device.upload(torch.tensor(scales), "prompt") if scales else None)
            self._known = asked, places
        return self._known[1]


def _covering(drafts: Sequence[Draft]) -> Spans:
    """Return a few ranges that contain every token that the drafts may write next."""
    wanted = sorted({(ids.start, ids.stop) for draft in drafts for ids in draft.allowed.spans})
    spans: list[range] = []
    for start, stop in wanted:
        if spans and start - spans[-1].stop <= BRIDGED_IDS:
            spans[-1] = range(spans[-1].start, max(stop, spans[-1].stop))
        else:
            spans.append(range(start, stop))
    return tuple(spans)
