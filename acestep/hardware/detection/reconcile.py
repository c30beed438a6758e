"""Combines all answers into one list of visible cards, each with the smallest size any source gives, and chooses one.

Pure.
"""

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from acestep.errors import UsageError
from acestep.hardware.card import Card, CardKind
from acestep.hardware.detection.answers import Answer, Problem, Source, named
from acestep.hardware.detection.choose import choose, choose_for_lm, others
from acestep.hardware.detection.torch_build import TorchBuild
from acestep.hardware.detection.torch_cards import is_same
from acestep.hardware.detection.visible import CUDA_VARIABLE
from acestep.hardware.detection.why import why_not
from acestep.units import gib

_ORDER = (CardKind.CUDA, CardKind.ROCM, CardKind.XPU, CardKind.MPS)
"""The preferred kind on a machine with several, if torch does not decide it."""


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """The combined answer of all sources.

    `card` is the one that is used, `cards` are all that could be, in the order of their indices. `remarks` are
    sentences to show before a run; `sizes` say where sources disagree about a card's memory. `obstacle` is why torch
    uses none of the cards, the first of the remarks; None if it uses one. `lm_card` is the one for the language model
    where that is another.
    """

    card: Card
    cards: tuple[Card, ...]
    answers: tuple[Answer, ...]
    remarks: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    obstacle: str | None = None
    lm_card: Card | None = None


def reconcile(
    answers: Sequence[Answer], build: TorchBuild | None, wish: str | None = None, lm_wish: str | None = None
) -> Detection:
    """Return the card for this process, and that for the language model which `lm_wish` names.

    `wish` names one by index, UUID or name; raise `UsageError` if no visible card fits it. If torch was asked, only
    cards that it lists can be used. Otherwise it is what the installed `build` of torch could use; if that build can
    use none of the cards here, a remark says so, and the plan is still for the card.
    """
    said = [answer for answer in answers if answer.source is not Source.TORCH]
    known, sizes = _merged(said)
    torch = next((answer for answer in answers if answer.source is Source.TORCH), None)
    if torch is None:
        usable = _usable(known, build)
        reason = why_not(None, said, known, build)
    else:
        # Torch may list cards that other sources consider hidden: only CUDA knows the order that a user set for it.
        usable, disagreeing = _as_torch_lists(torch.cards, known, [card for answer in said for card in answer.hidden])
        sizes += disagreeing
        reason = None if usable else why_not(torch, said, known, build)
    remarks = [reason] if reason else []
    try:
        card = choose(usable, wish)
        lm_card = choose_for_lm(usable, card, lm_wish)
    except UsageError as error:
        why = reason or _hidden_wish(said, wish, lm_wish)
        raise UsageError(f"{error}. {why}") if why else error from None
    serious = [problem for answer in said for problem in answer.problems if problem.serious]
    remarks += [str(problem) for problem in serious if not _is_moot(problem, answers)]
    if card.kind is not CardKind.CPU and not card.total_bytes:
        remarks.append(f"Nothing says how much memory {card.name} has, so the plan is that of the smallest cards.")
    remarks += others(card, [other for other in usable if other != lm_card])
    return Detection(
        card=card,
        cards=tuple(usable),
        answers=tuple(answers),
        remarks=tuple(dict.fromkeys(remarks)),
        sizes=tuple(sizes),
        obstacle=reason,
        lm_card=lm_card,
    )


def _hidden_wish(answers: Sequence[Answer], *wishes: str | None) -> str | None:
    """Return a sentence about the hidden card that one of the wishes names; None if none does."""
    hidden = [card for answer in answers for card in answer.hidden if card.kind is CardKind.CUDA and card.uuid]
    for wish in wishes:
        with suppress(UsageError):
            if hidden and wish and (card := choose(hidden, wish)) in hidden:
                return f"{named(card)} is here and hidden; {CUDA_VARIABLE}={card.uuid} shows it alone."
    return None


def _is_moot(problem: Problem, answers: Sequence[Answer]) -> bool:
    """Return whether another source replaces one that described no card: torch, and NVML for NVIDIA's files."""
    asked = {answer.source: answer for answer in answers}
    told_by = next(answer for answer in answers if problem in answer.problems)
    if told_by.cards or told_by.hidden:
        return False
    torch, nvml = asked.get(Source.TORCH), asked.get(Source.NVML)
    if told_by.source is Source.NVIDIA_FILES and nvml is not None and (nvml.cards or nvml.hidden):
        return True
    return torch is not None and bool(torch.cards)


def _merged(answers: Sequence[Answer]) -> tuple[list[Card], list[str]]:
    """Return every visible card once, as its first source describes it, with the smaller size.

    And remarks about sizes.
    """
    merged: list[Card] = []
    sizes: list[str] = []
    for answer in answers:
        for card in answer.cards:
            place = next((index for index, other in enumerate(merged) if is_same(other, card)), None)
            if place is not None:
                merged[place] = _smaller(merged[place], card, sizes, answer.source)
            elif not (answer.source is Source.NVIDIA_FILES and _is_known(card, answers)):
                merged.append(card)
    return merged, sizes


def _is_known(card: Card, answers: Sequence[Answer]) -> bool:
    """Return whether NVML answered about NVIDIA's cards: then a card that only the kernel's files list is not used."""
    nvml = (answer for answer in answers if answer.source is Source.NVML)
    return card.kind is CardKind.CUDA and any(answer.cards or answer.hidden or answer.lost for answer in nvml)


def _smaller(one: Card, other: Card, sizes: list[str], source: Source) -> Card:
    """Return the first description with the smaller known size; a difference is added to `sizes`."""
    both = [size for size in (one.total_bytes, other.total_bytes) if size]
    if len(both) == 2 and both[0] != both[1] and source is not Source.NVIDIA_FILES:
        sizes.append(f"{one.name}: {gib(both[0])} by the driver, {gib(both[1])} by {source}; the smaller counts.")
    if source is Source.NVIDIA_FILES and one.total_bytes:
        return one
    return msgspec.structs.replace(one, total_bytes=min(both, default=0), unified=one.unified or other.unified)


def _as_torch_lists(
    listed: Sequence[Card], known: Sequence[Card], hidden: Sequence[Card]
) -> tuple[list[Card], list[str]]:
    """Return torch's cards in its order, with the description of other sources if they know the card."""
    sizes: list[str] = []
    cards = []
    for card in listed:
        of_kind = [other for other in known if other.kind is card.kind]
        same = [other for other in (*of_kind, *hidden) if is_same(other, card)]
        alone = of_kind if len(of_kind) == len(listed) == 1 and not _differ(of_kind[0], card) else []
        match = next(iter(same or alone), None)
        cards.append(card if match is None else _of_both(match, card, sizes))
    return cards, sizes


def _differ(one: Card, other: Card) -> bool:
    """Return whether two cards surely differ: both sources gave the UUID of a whole board, and the UUIDs differ."""
    boards = one.uuid.startswith("GPU-") and other.uuid.startswith("GPU-")
    return boards and not is_same(one, other)


def _of_both(known: Card, card: Card, sizes: list[str]) -> Card:
    """Return a card that torch opens, with its permanent name and UUID and the smaller size."""
    found = _smaller(known, card, sizes, Source.TORCH)
    capability = card.capability if any(card.capability) else known.capability
    # If NVML gives no size, it only guesses that a card shares the main memory. CUDA knows.
    unified = card.unified if card.kind is CardKind.CUDA and card.total_bytes else found.unified
    return msgspec.structs.replace(found, capability=capability, unified=unified)


def _usable(known: Sequence[Card], build: TorchBuild | None) -> list[Card]:
    """Return the cards of one kind that the installed torch can open.

    If it can open none, those of the first kind here.
    """
    here = [kind for kind in _ORDER if any(card.kind is kind for card in known)]
    fitting = [kind for kind in here if build is not None and kind in build.kinds]
    kind = next(iter(fitting or here), None)
    return [card for card in known if card.kind is kind]
