"""Chooses the next token: the same steps in the same order for every backend.

The steps are guidance, the grammar's mask, repetition penalty over prompt and written tokens, top-k, top-p,
temperature, and a draw with noise that depends on the seed, the step and the token id (`gumbel`). Tokens
with the same logit as the last one that top-k or top-p keeps are kept too, so that the sorting order never decides.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acestep.devices.base import Device
from acestep.lm.job import Allowed, Job, State
from acestep.thinking import Sampling

_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
"""The constants of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014)."""


PIECE: Final = 1 << 14
"""Values in one step of a computation in 64 bits: 128 KiB, so that the next step finds them in the cache."""


def gumbel(seed: int, step: int, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return standard Gumbel noise for token ids at one step of a sequence."""
    stream = _mixed(_mixed(np.array([seed], dtype=np.uint64)) + np.uint64(step))
    noise = np.empty(len(ids))
    for start in range(0, len(ids), PIECE):
        piece = slice(start, start + PIECE)
        bits = _mixed(stream + ids[piece].astype(np.uint64)) >> np.uint64(11)
        # 53 bits, moved away from both ends of the interval so that neither logarithm gets a zero; NumPy turns signed
        # integers into floats much faster than unsigned ones.
        uniform = (bits.view(np.int64) + 0.5) * 2.0**-53
        np.negative(np.log(-np.log(uniform)), out=noise[piece])
    return noise


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's output for each value as a counter, in place of it; the sums overflow on purpose."""
    shifted = np.empty_like(values)
    with np.errstate(over="ignore"):
        values *= _STEP
        values += _STEP
        for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
            values ^= np.right_shift(values, np.uint64(shift), out=shifted)
            values *= factor
        values ^= np.right_shift(values, np.uint64(31), out=shifted)
    return values


Logits = NDArray[np.float32]
"""Logits of one sequence, on the host: there NumPy sorts them twenty times as fast as PyTorch on a CPU."""

Spans = tuple[range, ...]
"""Token ids as disjoint ascending ranges; a row of logits over them has one value for each id, in that order."""

NUCLEUS_GUESS: Final = 1_024
"""How many of the most likely tokens are tried for top-p before all are sorted; nearly always enough."""

UNLIKELY: Final = 1e30
"""The largest absolute value of a logit: far above real ones, and the sum of two does not overflow."""


class Draft:
    """A sequence as written so far. Token i is drawn with the noise of the seed at step i, so only the job decides."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tokens: list[int] = []
        self._allowed: Allowed | None = None
        self._move(job.grammar.start)

    @property
    def allowed(self) -> Allowed:
        """The tokens that may come next, asked for when they are needed: a card computes the next step by then."""
        if self._allowed is None:
            self._allowed = self.job.grammar.allowed(self._state)
        return self._allowed

    def append(self, token: int) -> None:
        """Append a token; raise `ValueError` for one that the grammar does not allow."""
        state = self.job.grammar.after(self._state, token)
        self.tokens.append(token)
        self._move(state)

    def _move(self, state: State) -> None:
        self._state, self._allowed = state, None
        self.done = self.job.grammar.done(state) or len(self.tokens) >= self.job.max_tokens


class Chooser(Protocol):
    """Chooses next tokens. In a simulation logits have no values, so an implementation need not read them."""

    def choose(self, logits: Tensor, spans: Spans, drafts: Sequence[Draft]) -> list[int]:
        """Return a token for each draft, from its row of the guided float32 `logits` [drafts, ids] over `spans`."""
        ...


class Sampler:
    """Copies the logits to the host once for each step, and samples from all rows at the same time.

    It uses as many threads as PyTorch computes with on the CPU, which waits meanwhile.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._threads = ThreadPoolExecutor(torch.get_num_threads(), "sampler")

    def choose(self, logits: Tensor, spans: Spans, drafts: Sequence[Draft]) -> list[int]:
        host = np.empty(tuple(logits.shape), dtype=np.float32)
        self._device.download(host, logits)
        # NumPy lets other threads run while it computes, and for a short row it hardly computes.
        together = self._threads.map if len(drafts) > 1 and host.shape[1] >= PIECE else map
        return list(together(lambda mine: next_token(mine[0], spans, mine[1]), zip(host, drafts, strict=True)))


def guide(guided: Tensor, unguided: Tensor, scale: Tensor | float) -> Tensor:
    """Return the guided logits in float32: the conditional ones moved away from the unconditional ones by `scale`.

    A tensor of scales has one value for each row.
    """
    without = unguided.float()
    return (guided.float() - without).mul_(scale).add_(without)


def next_token(row: Logits, spans: Spans, draft: Draft) -> int:
    """Return the next token of `draft` from its guided logits [ids] over `spans`, which contain all allowed tokens."""
    sampling, wanted = draft.job.sampling, draft.allowed.spans
    values = restrict(row, spans, wanted)
    # Broken weights must not make the plan fail: a NaN counts as the least likely value, which `fmax` prefers to it.
    values = np.minimum(np.fmax(values, -UNLIKELY), UNLIKELY)
    if sampling.repetition_penalty != 1:
        values = penalise(values, wanted, (*draft.job.prompt, *draft.tokens), sampling.repetition_penalty)
    if draft.allowed.greedy:
        return id_at(wanted, int(values.argmax()))
    kept = likeliest(values, sampling)
    noise = gumbel(draft.job.seed, len(draft.tokens), ids_at(wanted, kept))
    return id_at(wanted, pick(values, kept, sampling.temperature, noise))


def restrict(row: Logits, spans: Spans, wanted: Spans) -> Logits:
    """Return the part of a row over `spans` that belongs to the ids of `wanted`."""
    if spans == wanted:
        return row
    starts = [(position(spans, ids.start), len(ids)) for ids in wanted]
    return np.concatenate([row[start : start + count] for start, count in starts])


def penalise(values: Logits, spans: Spans, seen: Iterable[int], penalty: float) -> Logits:
    """Return `values` over `spans`, with tokens that already occurred made less likely."""
    places = (position(spans, token) for token in set(seen))
    at = [place for place in places if place >= 0]
    values = values.copy()
    values[at] = np.where(values[at] > 0, values[at] / penalty, values[at] * penalty)
    return values


def likeliest(values: Logits, sampling: Sampling) -> NDArray[np.intp]:
    """Return the positions, ascending, of the finite logits that top-k and then top-p keep."""
    if not 0 < sampling.top_k < len(values):
        return _nucleus(values, sampling.top_p) if sampling.top_p < 1 else np.arange(len(values))
    kept = np.flatnonzero(values >= np.partition(values, -sampling.top_k)[-sampling.top_k])
    return kept[_nucleus(values[kept], sampling.top_p)] if sampling.top_p < 1 else kept


def pick(values: Logits, kept: NDArray[np.intp], temperature: float, noise: NDArray[np.float64]) -> int:
    """Return the position among `kept` drawn with Gumbel `noise` [kept]; at temperature 0, the first of the highest."""
    likely = values[kept].astype(np.float64)
    if temperature > 0:
        likely = (likely - likely.max()) / temperature + noise
    return int(kept[likely.argmax()])


def position(spans: Spans, token: int) -> int:
    """Return the index of `token` among the ids of `spans`, or -1 if it is not among them."""
    before = 0
    for ids in spans:
        if token in ids:
            return before + token - ids.start
        before += len(ids)
    return -1


def id_at(spans: Spans, index: int) -> int:
    """Return the token at an index among the ids of `spans`."""
    for ids in spans:
        if index < len(ids):
            return ids[index]
        index -= len(ids)
    raise IndexError(f"position {index} lies behind the last of {sum(map(len, spans))} ids")


def ids_at(spans: Spans, positions: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return the tokens at ascending indexes among the ids of `spans`."""
    if len(spans) == 1:
        return positions.astype(np.int64) + spans[0].start
    counts = np.cumsum([0, *map(len, spans)])
    span = np.searchsorted(counts, positions, side="right") - 1
    return np.asarray(positions - counts[span] + np.array([ids.start for ids in spans])[span], dtype=np.int64)


def _nucleus(values: Logits, top_p: float) -> NDArray[np.intp]:
    """Return the positions, ascending, of the fewest most likely values with a total probability of `top_p` or more."""
    shares = np.exp(values - values.max())
    wanted = top_p * shares.sum(dtype=np.float64)
    if len(shares) > NUCLEUS_GUESS:
        likely = np.sort(np.partition(shares, -NUCLEUS_GUESS)[-NUCLEUS_GUESS:])[::-1]
        least = _share_reaching(likely, wanted)
        if least is not None:
            return np.flatnonzero(shares >= least)
    least = _share_reaching(np.sort(shares)[::-1], wanted)
    return np.arange(len(shares)) if least is None else np.flatnonzero(shares >= least)


def _share_reaching(descending: Logits, wanted: float) -> np.float32 | None:
    """Return the share with which the sum of `descending` ones reaches `wanted`; None if it stays below."""
    before = np.zeros(1)
    for start in range(0, len(descending), PIECE):
        # The first one is what is summed up so far, so that pieces give the sums of the whole.
        sums = np.concatenate([before, descending[start : start + PIECE]]).cumsum()
        at = int(sums[1:].searchsorted(wanted))
        if at < len(sums) - 1:
            return np.float32(descending[start + at])
        before = sums[-1:]
    return None
