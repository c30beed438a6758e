"""What acestep itself answers to a question of the explorer, in the explorer's words."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import msgspec

from acestep.budgets import System
from acestep.clip import FRAMES_A_SECOND
from acestep.evidence import Evidence, short_digest
from acestep.hardware.card import Card, CardKind, simulated_card
from acestep.hardware.card_chips import is_same_card
from acestep.knobs import KNOBS, LM_MODELS, Backend, Knobs, Offload, Quantization, Variant
from acestep.limits import room as room_module
from acestep.limits.capabilities import groups_attention
from acestep.limits.guard import knobs_key, predict, songs_at_once
from acestep.limits.plan import Overrides, Plan, clamp, resolve
from acestep.limits.room import MemoryQuestion, needed_bytes, question_of, songs_room
from acestep.limits.song_time import cards_of, is_own_card, stages_at, thinking_of, times_of
from acestep.limits.think_memory import lm_weight_bytes, think_bytes
from acestep.request import MAX_LYRIC_TOKENS, Request
from acestep.tiers import TierTable
from calibrate.report.real_cards import real_cards
from calibrate.timing.cards import known_cards

LONG_LYRICS = "la " * MAX_LYRIC_TOKENS


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a visitor of the explorer chooses; `place` is a card of its list, or None for one of `size` GiB.

    A wish is "auto", "none" or a value.
    """

    place: int | None
    size: float
    system: System
    variant: Variant
    duration: int
    batch: int
    lm: str
    offload: str
    quantization: str

    @property
    def card(self) -> Card:
        return simulated_card(self.size) if self.place is None else real_cards()[self.place].card

    @property
    def wishes(self) -> dict[str, Any]:
        asked = {name: getattr(self, name) for name in ("lm", "offload", "quantization")}
        empty = {"offload": Offload.NONE}
        return {name: empty.get(name) if value == "none" else value for name, value in asked.items() if value != "auto"}


def random_questions(count: int, seed: int, table: TierTable) -> list[Question]:
    """Questions about all kinds of cards and the variants of a table; many of them at the limits."""
    draw = random.Random(seed)  # noqa: S311 nothing secret is drawn
    formats = ("auto", "auto", "none", *(name.value for name in Quantization))
    return [
        Question(
            place=draw.choice((None, draw.randrange(len(real_cards())), draw.choice(_timed()))),
            size=draw.choice((draw.randint(1, 48), round(draw.uniform(1, 30), 2), draw.randint(8, 100) / 8)),
            system=draw.choice(list(System)),
            variant=draw.choice(list(table.variants)),
            duration=draw.choice((draw.randint(1, 600), 600, 610)),
            batch=draw.choice((1, 2, 4, 8, draw.randint(1, 16))),
            lm=draw.choice(("auto", "none", *LM_MODELS)),
            offload=draw.choice(("auto", "auto", *(mode.value for mode in Offload))),
            quantization=draw.choice(formats),
        )
        for _ in range(count)
    ]


def _timed() -> list[int]:
    """The places of the cards whose speed is known."""
    return [
        place
        for place, real in enumerate(real_cards())
        if any(
            is_same_card(card.name, card.vram_gib, real.card.name, real.card.nameplate_gib) for card in known_cards()
        )
    ]


def answered(question: Question, everywhere: TierTable) -> dict[str, Any]:
    """What `acestep generate` would do on that card and system, and what the VRAM guard predicts."""
    card, table = question.card, everywhere.on(question.system)
    overrides = Overrides(
        variant=question.variant,
        **{name: _knob(name, value) for name, value in question.wishes.items()},
    )
    with _on(question.system):
        request = Request(
            caption="",
            lyrics=LONG_LYRICS,
            duration_s=question.duration,
            batch=question.batch,
            think=question.lm != "none",
        )
        plan = resolve(card, table, overrides, request)
        if question.lm == "auto" and not plan.init_lm:
            request = msgspec.structs.replace(request, think=False)
            plan = resolve(card, table, overrides, request)
        thinks = request.thinks and plan.lm is not None
        made, cuts = clamp(request, plan, lm=thinks)
        asked = question_of(made, card, question.variant, thinks=thinks)
    return _document(plan, made, cuts, thinks=thinks, room=songs_room(card, table), table=table, asked=asked)


def _knob(name: str, value: Any) -> Any:
    kinds = {"offload": Offload, "quantization": Quantization}
    return value if value is None or name not in kinds else kinds[name](value)


@contextmanager
def _on(system: System) -> Iterator[None]:
    """The guard's own question about the system, which it otherwise asks Python."""
    told = partial(groups_attention, windows=system is System.WINDOWS)
    with mock.patch.object(room_module, "groups_attention", told):
        yield


def _document(
    plan: Plan,
    made: Request,
    cuts: tuple[str, ...],
    *,
    thinks: bool,
    room: int,
    table: TierTable,
    asked: MemoryQuestion,
) -> dict[str, Any]:
    model = table.variants[plan.variant].memory_model if room else {}
    demand = msgspec.structs.replace(asked.demand, songs=made.batch)
    resting = demand.width * int(model.get(f"{knobs_key(plan.knobs)}.rest", 0))
    at_once = songs_at_once(model, plan.knobs, demand, max(0, room - resting))
    stages = dict(predict(model, plan.knobs, msgspec.structs.replace(demand, songs=at_once)))
    stages.pop("total", None)
    if stages and thinks:
        stages = _with_lm(plan.knobs, stages, resting, asked)
        assert max(stages.values()) >= (needed_bytes(model, plan.knobs, asked) or 0)
    return {
        "plan": {
            **{name: getattr(plan, name) for name in ("tier", "label", "limits_of", "certified_gib", "init_lm")},
            **{name: msgspec.to_builtins(getattr(plan, name)) for name in KNOBS if name != "attention"},
            **{
                name: msgspec.to_builtins(getattr(plan, name))
                for name in ("lm_models", "lm_songs_per_pass", "backends_allowed", "frontier", "reach", "warnings")
            },
            "evidence": _source(plan.evidence["frontier"]),
            "evidence_with_lm": _source(plan.evidence.get("frontier.with_lm") or plan.evidence["frontier"]),
        },
        "thinks": thinks,
        "duration": made.duration_s,
        "batch": made.batch,
        "cuts": list(cuts),
        "room": room,
        "at_once": at_once,
        "song_seconds": _song_seconds(plan, made, table, thinks=thinks),
        "stages": stages or None,
    }


def _song_seconds(plan: Plan, made: Request, table: TierTable, *, thinks: bool) -> float | None:
    """The time on the plan's own card, which the table may not know."""
    tier = times_of(plan, table.variants[plan.variant].times)
    cards = [card for card in cards_of(plan, tier) if is_own_card(plan, card)]
    if not cards or plan.card.kind is not CardKind.CUDA:
        return None
    thought = thinking_of(plan, cards[0]) if thinks else None
    return None if thinks and thought is None else sum(stages_at(cards[0], made.duration_s, thought).values())


def _source(evidence: Evidence) -> str:
    return f"{evidence.kind} {short_digest(evidence.record)}".strip()


def _with_lm(knobs: Knobs, stages: dict[str, int], resting: int, asked: MemoryQuestion) -> dict[str, int]:
    stays = knobs.offload is Offload.NONE and knobs.backend is Backend.PT
    beside = lm_weight_bytes(knobs, asked.lm_itemsize) if stays else 0
    think = think_bytes(knobs, asked.demand.frames / FRAMES_A_SECOND, asked.lm_itemsize)
    return {"think": resting + think} | {name: n_bytes + beside for name, n_bytes in stages.items()}
