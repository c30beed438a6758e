"""Which knobs are granted: a wish that takes more than the tier's knobs is granted where its prediction fits. Pure."""

from collections.abc import Callable, Iterator

import msgspec

from acestep.knobs import KNOBS, LM_MODELS, Backend, Knobs, Offload
from acestep.units import gib

Need = Callable[[Knobs], int | None]
"""The bytes that the request needs under some knobs; None if they cannot be predicted."""


class Certified(msgspec.Struct, frozen=True, kw_only=True):
    """The knobs that a tier is certified with, and the language models that it is certified for."""

    knobs: Knobs
    lm_models: tuple[str, ...]

    def covers(self, knobs: Knobs) -> bool:
        """Return whether these knobs take no more memory than certified ones."""
        ours = self.knobs
        less = all(KNOBS[name].rank(getattr(knobs, name)) >= KNOBS[name].rank(getattr(ours, name)) for name in _SAVING)
        if knobs.lm is None:
            return less
        ranked = KNOBS["lm_quantization"].rank
        return less and knobs.lm in self.lm_models and ranked(knobs.lm_quantization) >= ranked(ours.lm_quantization)


_SAVING = tuple(name for name, knob in KNOBS.items() if knob.saves and not knob.of_lm)


def grant(wished: Knobs, certified: Certified, need: Need, room_bytes: int, notes: list[str]) -> Knobs:
    """Return the wished knobs where they are certified or predicted to fit, else those with the fewest changes that do.

    More offload is tried first, so that a larger language model fits; then the tier's own weights and language model.
    `notes` gets a sentence for each wish that is not granted.
    """
    if certified.covers(wished):
        return wished
    granted = next(knobs for knobs in _ever_less(wished, certified) if _fits(knobs, certified, need, room_bytes))
    if granted != wished:
        notes.extend(_refusals(wished, granted, certified, need, room_bytes))
    return granted


def with_fitting_models(usual: Knobs, certified: Certified, need: Need, room_bytes: int) -> tuple[str, ...]:
    """Return the language models that are certified, or predicted to fit with `usual` knobs under some offload."""
    return tuple(
        model
        for model in LM_MODELS
        if model in certified.lm_models
        or any(
            _fits(knobs, certified, need, room_bytes)
            for knobs in _moving(msgspec.structs.replace(usual, lm=model), certified)
        )
    )


def _fits(knobs: Knobs, certified: Certified, need: Need, room_bytes: int) -> bool:
    if certified.covers(knobs):
        return True
    needed = need(knobs)
    return needed is not None and needed <= room_bytes


def _ever_less(wished: Knobs, certified: Certified) -> Iterator[Knobs]:
    """Yield the wished knobs, then ones that take ever less; the last ones are certified."""
    ours = certified.knobs
    models = [wished.lm] if wished.lm in (None, *certified.lm_models) else [wished.lm, *certified.lm_models[-1:], None]
    for model in models:
        for lm_quantization in dict.fromkeys((wished.lm_quantization, ours.lm_quantization)):
            for quantization in dict.fromkeys((wished.quantization, ours.quantization)):
                yield from _moving(
                    msgspec.structs.replace(
                        wished, lm=model, lm_quantization=lm_quantization, quantization=quantization
                    ),
                    certified,
                )


def _moving(knobs: Knobs, certified: Certified) -> Iterator[Knobs]:
    """Yield the knobs, then the same with ever more offload.

    Where nothing may stay on the card beside a language model that is not certified, PyTorch runs it: vLLM takes more
    than its weights.
    """
    yield knobs
    alone = knobs.lm is not None and knobs.lm not in certified.lm_models
    for offload in list(Offload)[list(Offload).index(knobs.offload) + 1 :]:
        backend = Backend.PT if alone and offload is not Offload.CPU else knobs.backend
        yield msgspec.structs.replace(knobs, offload=offload, backend=backend)


def _refusals(wished: Knobs, granted: Knobs, certified: Certified, need: Need, room_bytes: int) -> Iterator[str]:
    needed, instead = need(wished), need(granted)
    counted = ""
    if needed is not None:
        counted = f" This song would need {gib(needed)}, and songs may take {gib(room_bytes)} of this card"
        counted += "." if instead is None else f"; so it needs {gib(instead)}."
    if granted.lm != wished.lm:
        # Not "too large": in a smaller weight format than the table measured it might fit.
        offered = ", ".join(certified.lm_models) or "none"
        yield (
            f"Language model {wished.lm} is not certified on this card (offered: {offered});"
            f" {granted.lm or 'none'} is used.{counted}"
        )
    if granted.backend is not wished.backend:
        yield f"Backend {wished.backend} takes too much beside language model {granted.lm}; {granted.backend} is used."
    for name, part in (("quantization", "transformer"), ("lm_quantization", "language model")):
        if getattr(granted, name) != getattr(wished, name):
            kept = getattr(granted, name)
            how = "Unquantized" if getattr(wished, name) is None else f"In {getattr(wished, name)}"
            yield f"{how}, the {part} is not certified to fit this card; {kept} is kept.{counted}"
    if (
        granted.offload is not wished.offload
        and granted.lm == wished.lm
        and wished.lm
        not in (
            None,
            *certified.lm_models,
        )
    ):
        yield (
            f"Language model {wished.lm} does not fit with offload {wished.offload}; {granted.offload} is used with"
            f" it, which takes longer.{counted}"
        )
    elif granted.offload is not wished.offload:
        yield (
            f"Offload {wished.offload} needs more memory than this card is certified for; {granted.offload} is used."
            f"{counted} Shorter songs need less."
        )
