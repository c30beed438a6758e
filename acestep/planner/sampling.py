"""Which token comes next: the same steps in the same order, whatever ran the model.

Guidance, the grammar's mask, repetition penalty over prompt and written tokens, top-k, top-p, temperature, softmax,
and a draw along the ids in ascending order. What ties with the last token that top-k or top-p keeps stays in too, so
that no sorting order decides.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from acestep.devices.base import Device
from acestep.planner.job import Allowed, Job, Sampling

Spans = tuple[range, ...]
"""Token ids as disjoint ascending ranges; a row of logits over them has one value for each, in that order."""

NUCLEUS_GUESS: Final = 1_024
"""How many of the likeliest tokens are looked at for top-p before all are sorted: that is most of the work."""


class Draft:
    """A sequence as far as it is written. Token i is drawn with number i of the seed, so only the job decides it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tokens: list[int] = []
        self._state = job.grammar.start
        # Drawn in advance, because forced tokens must not shift the numbers of those after them.
        generator = torch.Generator().manual_seed(job.seed)
        self._uniforms = torch.rand(job.max_tokens, generator=generator, dtype=torch.float64).tolist()
        self._look()

    @property
    def uniform(self) -> float:
        """The number in [0, 1) that decides the next token."""
        drawn: float = self._uniforms[len(self.tokens)]
        return drawn

    def append(self, token: int) -> None:
        """Write a token; raises `ValueError` for one that the grammar does not allow."""
        self._state = self.job.grammar.after(self._state, token)
        self.tokens.append(token)
        self._look()

    def _look(self) -> None:
        self.done = self.job.grammar.done(self._state) or len(self.tokens) >= self.job.max_tokens
        if not self.done:
            self.allowed: Allowed = self.job.grammar.allowed(self._state)


class Chooser(Protocol):
    """Decides next tokens; in simulation logits have no values, so the protocol does not promise that they are read."""

    def choose(self, logits: Tensor, spans: Spans, drafts: Sequence[Draft]) -> list[int]:
        """A token for each draft, by its row of the guided float32 `logits` [drafts, ids] over `spans`."""
        ...


class Sampler:
    """Reads the logits back from the device, once a step, and draws from them."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def choose(self, logits: Tensor, spans: Spans, drafts: Sequence[Draft]) -> list[int]:
        """A token for each draft."""
        host = np.empty(tuple(logits.shape), dtype=np.float32)
        self._device.download(host, logits)
        return [choose(row, spans, draft) for row, draft in zip(torch.from_numpy(host), drafts, strict=True)]


def guide(guided: Tensor, unguided: Tensor, scale: Tensor | float) -> Tensor:
    """Logits led away from those without the wishes, in float32; a tensor of scales has one for each row."""
    without = unguided.float()
    return (guided.float() - without).mul_(scale).add_(without)


def choose(row: Tensor, spans: Spans, draft: Draft) -> int:
    """The next token of `draft` by its guided float32 logits [ids] over `spans`, on the host."""
    sampling, wanted = draft.job.sampling, draft.allowed.spans
    values = restrict(row, spans, wanted)
    if sampling.repetition_penalty != 1:
        values = penalise(values, wanted, (*draft.job.prompt, *draft.tokens), sampling.repetition_penalty)
    return id_at(wanted, pick(values, sampling, draft.uniform, greedy=draft.allowed.greedy))


def restrict(row: Tensor, spans: Spans, wanted: Spans) -> Tensor:
    """The part of a row over `spans` that is about the ids of `wanted`, all of which it covers."""
    if spans == wanted:
        return row
    pieces = []
    for ids in wanted:
        first = position(spans, ids.start)
        pieces.append(row[first : first + len(ids)])
    return torch.cat(pieces)


def penalise(values: Tensor, spans: Spans, seen: Iterable[int], penalty: float) -> Tensor:
    """`values` over `spans` with those of tokens already seen made less likely."""
    places = (position(spans, token) for token in set(seen))
    at = torch.tensor([place for place in places if place >= 0], dtype=torch.long)
    met = values[at]
    return values.index_copy(0, at, torch.where(met > 0, met / penalty, met * penalty))


def pick(values: Tensor, sampling: Sampling, uniform: float, *, greedy: bool = False) -> int:
    """The position drawn from logits by `uniform` in [0, 1); the likeliest, the first of equals, where `greedy`."""
    if greedy or sampling.temperature == 0:
        return int(values.numpy().argmax())
    kept = _kept(values, sampling)
    likely = values[kept].double()
    mass = ((likely - likely.max()) / sampling.temperature).exp_().cumsum(0)
    drawn = int(torch.searchsorted(mass, uniform * mass[-1], right=True))
    return int(kept[min(drawn, len(kept) - 1)])


def position(spans: Spans, token: int) -> int:
    """Where `token` stands among the ids of `spans`; -1 where it is not among them."""
    before = 0
    for ids in spans:
        if token in ids:
            return before + token - ids.start
        before += len(ids)
    return -1


def id_at(spans: Spans, index: int) -> int:
    """The token at a position among the ids of `spans`."""
    for ids in spans:
        if index < len(ids):
            return ids[index]
        index -= len(ids)
    raise IndexError(f"position {index} lies behind the last of {sum(map(len, spans))} ids")


def _kept(values: Tensor, sampling: Sampling) -> Tensor:
    """Positions, ascending, of what top-k and then top-p leave in."""
    kept = torch.arange(len(values))
    if 0 < sampling.top_k < len(values):
        kept = (values >= values.topk(sampling.top_k).values[-1]).nonzero()[:, 0]
    if sampling.top_p < 1:
        kept = kept[_nucleus(values[kept], sampling.top_p)]
    return kept


def _nucleus(values: Tensor, top_p: float) -> Tensor:
    """Positions, ascending, of the fewest likeliest values that together have at least `top_p` of the mass."""
    shares = values.softmax(0)
    for count in (NUCLEUS_GUESS, len(shares)):
        best = shares.topk(min(count, len(shares))).values
        short_of_it = int((best.cumsum(0, dtype=torch.float64) < top_p).sum())
        if short_of_it < len(best):
            return (shares >= best[short_of_it]).nonzero()[:, 0]
    return torch.arange(len(values))
