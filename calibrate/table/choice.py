"""Decides the knobs and limits of a tier by the policy, with a function that finds the longest song that fits. Pure.

A campaign answers it by probing and the table from the records, so both decide alike.
"""

from collections.abc import Callable, Collection, Iterator
from itertools import product

import msgspec

from acestep.knobs import LM_MODELS, Backend, Knobs, Quantization, Variant
from acestep.tiers import BATCHES, Frontier, lm_rank
from calibrate.table.knobs import ladder, preferred
from calibrate.table.policy import Policy, TierPolicy

FindLongest = Callable[[Knobs, int, int], int]
"""Returns the longest song in seconds that fits for knobs, a batch and an upper limit in seconds; 0 for none."""


class UnansweredByRecordError(KeyError):
    """A record holds no certificate of a question: it was made before the question was asked."""


class LmChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The language models a tier offers, smallest first; the last is recommended. Without one, ``models`` is empty."""

    models: tuple[str, ...] = ()
    quantization: Quantization | None = None
    backends: tuple[Backend, ...] = ()

    def knobs(self, rung: Knobs, model: str, backend: Backend) -> Knobs:
        """A rung with one of the models."""
        return thinking(rung, model, self.quantization, backend)


class OtherLm(msgspec.Struct, frozen=True, kw_only=True):
    """A language model that fits a tier under other knobs than its own: on a rung, in weights, on some backends.

    `reach` is the longest song for each batch.
    """

    model: str
    rung: Knobs
    quantization: Quantization | None
    backends: tuple[Backend, ...]
    reach: dict[str, int]

    @property
    def headline(self) -> tuple[int, int]:
        """The largest batch of the longest song, and its seconds."""
        longest = self.reach["1"]
        return max(size for size in BATCHES if self.reach[str(size)] == longest), longest

    def knobs(self, backend: Backend) -> Knobs:
        """The knobs of a run with it."""
        return thinking(self.rung, self.model, self.quantization, backend)


class TierChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One tier of a table: its knobs, their rung of the ladder, the frontier and the language models.

    `others` fit under other knobs, which leave more of the card to them.
    """

    knobs: Knobs
    rung: int
    frontier: Frontier
    lm: LmChoice
    others: tuple[OtherLm, ...] = ()


def thinking(rung: Knobs, model: str, quantization: Quantization | None, backend: Backend) -> Knobs:
    """A rung with a language model."""
    return msgspec.structs.replace(rung, lm=model, lm_quantization=quantization, backend=backend)


PROBED = (Backend.PT, Backend.VLLM)
"""The backends that a probe can run or compute; MLX runs on Apple machines only, which cannot be probed."""


def choose_tier(
    ask: FindLongest, policy: Policy, decided: TierPolicy, variant: Variant, probed: Collection[Backend] = PROBED
) -> TierChoice:
    """Choose the first rung on which the longest song fits, alone and with the smallest language model to offer.

    If there is none, the rung with the longest songs. Then the frontier of that rung, the language models that reach
    furthest on it, and the frontier of the largest of them. A language model has to fit on every backend that is
    allowed and can be `probed`. At last, for each other one the first later rung on which it reaches the longest song
    on some backend.
    """
    longest = policy.durations_s.values[-1]
    backends = tuple(backend for backend in decided.backends_allowed if backend in probed)
    reach: dict[Knobs, int] = {}
    chosen = None
    for rung in ladder(policy, variant):
        reach[rung] = ask(rung, 1, longest)
        if reach[rung] == longest and _least(ask, decided, rung, backends, longest):
            chosen = rung
            break
    chosen = chosen or preferred(reach)
    without_lm = _frontier(lambda batch, limit: ask(chosen, batch, limit), reach[chosen])
    lm, reached = _language_models(ask, decided, chosen, backends, reach[chosen])
    with_lm = dict.fromkeys(map(str, BATCHES), 0)
    if lm.models:
        with_lm = _frontier(lambda batch, limit: _all(ask, lm, chosen, batch, limit), reached)
    frontier = Frontier(with_lm=with_lm, without_lm=without_lm)
    for model, backend in product(lm.models, lm.backends):
        # The smaller models share the limits of the recommended one, so they are tried at these limits too.
        ask(lm.knobs(chosen, model, backend), frontier.headline_batch(lm=True), reached)
    others = tuple(_others(ask, policy, decided, chosen, backends, lm, reach[chosen]))
    return TierChoice(knobs=chosen, rung=list(reach).index(chosen), frontier=frontier, lm=lm, others=others)


def _least(ask: FindLongest, decided: TierPolicy, rung: Knobs, backends: tuple[Backend, ...], longest: int) -> bool:
    """Return whether some language model, no smaller than the smallest to offer, reaches the longest song on a rung."""
    worthy = LM_MODELS[lm_rank(decided.least_lm) :]
    return any(
        all(ask(thinking(rung, model, quantization, backend), 1, longest) == longest for backend in backends)
        for quantization, model in product(decided.lm_quantizations, worthy)
    )


def _language_models(
    ask: FindLongest, decided: TierPolicy, rung: Knobs, backends: tuple[Backend, ...], limit: int
) -> tuple[LmChoice, int]:
    """Return the offer with the largest model among those that reach furthest, least quantized; and its length."""
    offers: list[tuple[int, LmChoice]] = []
    for quantization in decided.lm_quantizations if limit else ():
        found = {
            model: min(ask(thinking(rung, model, quantization, backend), 1, limit) for backend in backends)
            for model in LM_MODELS
        }
        furthest = max(found.values())
        models = tuple(model for model in LM_MODELS if found[model] == furthest > 0)
        offers.append((furthest, LmChoice(models=models, quantization=quantization, backends=backends)))
    best = max(offers, key=_worth, default=(0, LmChoice()))
    return (best[1], best[0]) if best[1].models else (LmChoice(), 0)


def _others(
    ask: FindLongest,
    policy: Policy,
    decided: TierPolicy,
    chosen: Knobs,
    backends: tuple[Backend, ...],
    lm: LmChoice,
    limit: int,
) -> Iterator[OtherLm]:
    """Yield the models that do not fit beside the tier's own knobs, with the first knobs that make room for them.

    The transformer's weights stay as they are: while a model thinks under offload `cpu+dit`, they are not on the card.
    An older record may not have been asked about a model; then it is not offered.
    """
    rungs = ladder(policy, chosen.variant)
    later = [rung for rung in rungs[rungs.index(chosen) :] if rung.quantization is chosen.quantization]
    for model in LM_MODELS if limit else ():
        if model in lm.models:
            continue
        for rung, quantization in product(later, decided.lm_quantizations):
            try:
                found = _other(ask, rung, model, quantization, backends, limit)
            except UnansweredByRecordError:
                found = None
            if found is not None:
                yield found
                break


def _other(
    ask: FindLongest,
    rung: Knobs,
    model: str,
    quantization: Quantization | None,
    backends: tuple[Backend, ...],
    limit: int,
) -> OtherLm | None:
    fitting = tuple(name for name in backends if ask(thinking(rung, model, quantization, name), 1, limit) == limit)
    if not fitting:
        return None

    def longest(batch: int, at_most: int) -> int:
        return min(ask(thinking(rung, model, quantization, name), batch, at_most) for name in fitting)

    most = longest(BATCHES[-1], limit)
    # Where the largest batch reaches the longest song, so do the others.
    reach = dict.fromkeys(map(str, BATCHES), limit) if most == limit else _frontier(longest, limit)
    return OtherLm(model=model, rung=rung, quantization=quantization, backends=fitting, reach=reach)


def _worth(offer: tuple[int, LmChoice]) -> tuple[int, int]:
    reached, lm = offer
    return reached, lm_rank(lm.models[-1] if lm.models else None)


def _all(ask: FindLongest, lm: LmChoice, rung: Knobs, batch: int, limit: int) -> int:
    """Return how far the recommended model reaches on every backend a user may choose."""
    return min(ask(lm.knobs(rung, lm.models[-1], backend), batch, limit) for backend in lm.backends)


def _frontier(longest: Callable[[int, int], int], single: int) -> dict[str, int]:
    """Return the longest song per batch, each no longer than that of the batch before."""
    entries = {str(BATCHES[0]): single}
    for batch in BATCHES[1:]:
        entries[str(batch)] = longest(batch, min(entries.values())) if min(entries.values()) else 0
    return entries
