"""Card + tier table + wishes -> Plan: every knob has a value, every limit is known, every refusal is explained.

Pure.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from acestep.evidence import Evidence, EvidenceKind, short_digest
from acestep.fields import SHORTEST_PLAN_S
from acestep.hardware.card import Card, CardKind
from acestep.knobs import KNOBS, LM_MODELS, Backend, Knobs, KnobValues, Offload
from acestep.limits.capabilities import songs_in_float16, songs_in_float32
from acestep.limits.fallbacks import Fallbacks, backends_on, moves_weights
from acestep.limits.granting import Certified, grant, with_fitting_models
from acestep.limits.names import parse_knob
from acestep.limits.prediction import Prediction, with_float32_lms
from acestep.limits.room import songs_room
from acestep.limits.second_card import beside, lm_bytes_on, lm_refusal
from acestep.limits.tier_of_card import adapted, tier_and_limits, tiers_of, told_room
from acestep.request import DEFAULT_DURATION_S, MAX_BATCH, MAX_DURATION_S, Request
from acestep.tiers import BATCHES, Frontier, LmStates, Tier, TierTable
from acestep.typed import from_user
from acestep.units import minutes

EXACT = "exact"
"""The tier's name in a plan without a tier."""


_Wishes = msgspec.defstruct(
    "_Wishes",
    [
        (field.name, field.type | UnsetType, field.default if field.name == "variant" else UNSET)
        for field in msgspec.structs.fields(Knobs)
    ],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
)


class Overrides(_Wishes):  # type: ignore[misc, valid-type]  # one field for each knob
    """The user's choice for each knob. `UNSET` leaves a knob to the tier; None asks for none."""


def overrides_from(values: Mapping[str, Any]) -> Overrides:
    """Build overrides from fields given as text or as values; raise `UsageError` for an unknown field or value."""
    parsed = {
        name: parse_knob(name, value) if isinstance(value, str) and name in KNOBS else value
        for name, value in values.items()
        if value is not UNSET
    }
    return from_user(parsed, Overrides, "no such override: {}")


AS_THE_TIER_SAYS = Overrides()
"""No wishes."""


class Plan(KnobValues, frozen=True):
    """How to run on a card, with a value for every knob, and how much may be asked of it.

    `tier` names the card's tier; the limits were proven at `certified_gib`, a nameplate in GiB, and come from the tier
    `limits_of`. `lm` is the language model used if thinking is asked for; `init_lm` says whether it is loaded by
    default. `reach` is the longest song in seconds that is predicted to fit if songs are made one at a time, 0 if there
    is no prediction. `lm_card` is the card that the language model runs on where that is another than the songs'.
    `dtype` is the type in which songs are made, None if it is not known.
    """

    card: Card
    tier: str
    label: str
    limits_of: str
    certified_gib: int
    init_lm: bool
    lm_models: tuple[str, ...]
    lm_songs_per_pass: dict[str, int]
    backends_allowed: tuple[Backend, ...]
    max_duration_s: LmStates
    max_batch: LmStates
    frontier: Frontier
    evidence: dict[str, Evidence]
    reach: LmStates = LmStates(with_lm=0, without_lm=0)
    lm_card: Card | None = None
    dtype: str | None = None
    warnings: tuple[str, ...] = ()

    def longest(self, batch: int, *, lm: bool) -> int:
        """Return the longest song of a batch in seconds, certified or predicted; 0 if there is none."""
        return max(self.frontier.longest(batch, lm=lm), self.reach.of(lm=lm))

    @property
    def knobs(self) -> Knobs:
        """The knobs the pipeline is built with."""
        return Knobs(**{name: getattr(self, name) for name in KNOBS})

    @property
    def longest_planned_s(self) -> int:
        """The longest song a language model may have to plan, in seconds.

        If none is certified, the longest without it.
        """
        return self.longest(1, lm=True) or self.longest(1, lm=False)


def resolve(
    card: Card,
    table: TierTable,
    overrides: Overrides = AS_THE_TIER_SAYS,
    request: Request | None = None,
    *,
    lm_card: Card | None = None,
    torchao_available: bool = True,
    flash_attn_available: bool = True,
) -> Plan:
    """Return the plan of a card under a table, for a `request` or for songs of the usual length.

    Each override is honoured, or named in `warnings` with its replacement. One that takes more memory than the tier's
    knobs is honoured where the VRAM guard predicts that the request fits. The language model runs on `lm_card`, if
    there is one.
    """
    notes: list[str] = []
    settle = Fallbacks(
        card=card, torchao_available=torchao_available, flash_attn_available=flash_attn_available, notes=notes
    )
    tiers = tiers_of(table, overrides.variant, notes)
    tier, own = tier_and_limits(card, overrides.variant, tiers, notes)
    limits = own
    prediction = Prediction(card, table, overrides.variant, request, lm_apart=lm_card is not None)
    if lm_card is not None:
        duration_s = request.duration_s if request is not None and request.duration_s else DEFAULT_DURATION_S
        lm_room = songs_room(lm_card, table)
        limits = beside(limits, lm_card, duration_s, lm_room)
        overrides = _on_second_card(overrides, limits, lm_card, duration_s, lm_room, notes)
    else:
        limits = own.thinking_with(overrides.lm)
        if songs_in_float16(card, overrides.variant):
            limits = with_float32_lms(limits, prediction, notes)
    needed = adapted(limits, card, overrides.variant, notes)
    lm = settle.lm(
        overrides.lm,
        limits.lm_models,
        limits.recommended_lm,
        any_certified=any(tier.lm_models for tier in tiers),
    )
    quantization = settle.possible("transformer", needed.quantization)
    lm_quantization = settle.possible("language model", needed.lm_quantization)
    ours = Knobs(offload=needed.offload, quantization=quantization, lm_quantization=lm_quantization)
    knobs = {name: getattr(needed, name, knob.default) for name, knob in KNOBS.items()}
    knobs |= {name: wish for name, wish in msgspec.structs.asdict(overrides).items() if wish is not UNSET}
    # These depend on the card; every other wish is granted as it is.
    knobs |= {
        "lm": lm,
        "lm_quantization": settle.quantization("language model", overrides.lm_quantization, lm_quantization),
        "backend": settle.backend(overrides.backend, needed.backend, needed.backends_allowed),
        "offload": settle.offload(overrides.offload, needed.offload),
        "quantization": settle.quantization("transformer", overrides.quantization, quantization),
        "attention": settle.attention(overrides.attention),
        "compile": settle.compile(overrides.compile, default=needed.compile),
    }
    thinks = request.thinks if request is not None else limits.init_lm or overrides.lm is not UNSET
    certified = Certified(knobs=ours, lm_models=limits.own_lm_models)
    need = prediction.need(thinks=thinks)
    granted = grant(Knobs(**knobs), certified, need, prediction.room_bytes, notes)
    granted = msgspec.structs.replace(granted, backend=settle.backend_for(granted.backend, granted.lm_quantization))
    if limits is not own and lm_card is None:
        told_room(own, limits, msgspec.structs.asdict(overrides), granted, notes)
    reach = LmStates(
        with_lm=0 if granted.lm is None else prediction.reach(granted, thinks=True),
        without_lm=prediction.reach(granted, thinks=False),
    )
    usual = msgspec.structs.replace(ours, variant=granted.variant, backend=needed.backend)
    fitting = limits.lm_models
    if lm_card is None:
        fitting = with_fitting_models(usual, certified, prediction.need(thinks=True), prediction.room_bytes)
    offered = tuple(model for model in LM_MODELS if model in (*fitting, granted.lm))
    plan = Plan(
        **msgspec.structs.asdict(granted),
        card=card,
        tier=tier.id,
        label=tier.label,
        limits_of=limits.id,
        certified_gib=limits.certified_gib,
        init_lm=limits.init_lm and granted.lm is not None,
        lm_models=offered if any(tier.lm_models for tier in tiers) else (),
        lm_songs_per_pass=limits.lm_songs_per_pass,
        backends_allowed=needed.backends_allowed,
        max_duration_s=limits.max_duration_s,
        max_batch=limits.max_batch,
        frontier=limits.frontier,
        evidence=limits.evidence,
        reach=reach,
        lm_card=lm_card if granted.lm is not None else None,
        warnings=tuple(notes),
    )
    return plan if certified.covers(granted) else _predicted(plan)


def _predicted(plan: Plan) -> Plan:
    """Return a plan whose knobs take more than the certified ones, with limits that are predicted."""
    reach, evidence = plan.reach, Evidence(kind=EvidenceKind.ESTIMATED, record="")

    def entries(longest_s: int) -> dict[str, int]:
        return {str(batch): longest_s for batch in BATCHES}

    frontier = Frontier(with_lm=entries(reach.with_lm), without_lm=entries(reach.without_lm))
    limits = ("max_duration_s", "max_batch", "frontier")
    others = {field: source for field, source in plan.evidence.items() if field.partition(".")[0] not in limits}
    return msgspec.structs.replace(
        plan,
        max_duration_s=reach,
        max_batch=LmStates(with_lm=frontier.headline_batch(lm=True), without_lm=frontier.headline_batch(lm=False)),
        frontier=frontier,
        evidence=others | dict.fromkeys(limits, evidence),
    )


def on_device(plan: Plan, device: Card, *, torchao_available: bool = True, flash_attn_available: bool = True) -> Plan:
    """Return the plan as the `device` of this run can carry it out, if it was made for another card."""
    notes: list[str] = []
    settle = Fallbacks(
        card=device, torchao_available=torchao_available, flash_attn_available=flash_attn_available, notes=notes
    )
    allowed = backends_on(device, plan.backends_allowed)
    can_compile = device.kind in (CardKind.CUDA, plan.card.kind)
    wider = (
        f"{device.name} has no bfloat16, so the model runs in float32 there and takes twice what this plan counts on:"
        " fewer songs are made at once, or more is offloaded."
    )
    if (
        songs_in_float32(device, plan.variant)
        and not songs_in_float32(plan.card, plan.variant)
        and wider not in plan.warnings
    ):
        notes.append(wider)
    if plan.compile and not can_compile:
        notes.append(f"Compiling is left off on {device.name}.")
    return msgspec.structs.replace(
        plan,
        attention=settle.attention(plan.attention),
        lm_quantization=settle.quantization("language model", plan.lm_quantization, None),
        backend=settle.backend(plan.backend, allowed[0], allowed),
        backends_allowed=allowed,
        offload=settle.offload(plan.offload, Offload.NONE),
        quantization=settle.quantization("transformer", plan.quantization, None),
        compile=settle.compile(plan.compile and can_compile, default=False),
        warnings=(*plan.warnings, *notes),
    )


def exact(card: Card, knobs: Knobs) -> Plan:
    """Return a plan with exactly these knobs and only a request's own limits: what a probe runs."""
    longest = int(MAX_DURATION_S)
    entries = {str(batch): longest for batch in BATCHES}
    return Plan(
        card=card,
        tier=EXACT,
        label=EXACT,
        limits_of=EXACT,
        certified_gib=0,
        init_lm=knobs.lm is not None,
        lm_models=() if knobs.lm is None else (knobs.lm,),
        lm_songs_per_pass={},
        backends_allowed=(knobs.backend,),
        max_duration_s=LmStates(with_lm=longest, without_lm=longest),
        max_batch=LmStates(with_lm=MAX_BATCH, without_lm=MAX_BATCH),
        frontier=Frontier(with_lm=entries, without_lm=entries),
        evidence={},
        **msgspec.structs.asdict(knobs),
    )


def clamp(request: Request, plan: Plan, *, lm: bool) -> tuple[Request, tuple[str, ...]]:
    """Return the request reduced to the plan's frontier, and a sentence for each reduction; `lm` says if it thinks.

    The duration is kept up to the limit of a batch of one, then the batch is reduced to the largest that allows it. If
    the language model is to choose the duration, it may choose up to what the batch allows, if any choice is left.
    """
    lm = lm and plan.lm is not None
    asked_s = request.duration_s or DEFAULT_DURATION_S
    longest = plan.longest(1, lm=lm)
    thinking = "with a language model" if lm else "without a language model"
    source = f"{plan.limits_of}, {_evidence(plan)}"
    if longest == 0:
        tried_s = min(asked_s, MAX_DURATION_S)
        return msgspec.structs.replace(request, batch=1, duration_s=tried_s), (
            f"No song length is certified on this card {thinking} ({source}): one song of {minutes(tried_s)} is tried, "
            "and it may run out of memory.",
        )
    warnings: list[str] = []
    duration = min(asked_s, float(longest))
    if duration < request.duration_s:
        how = "certified on" if longest == plan.frontier.longest(1, lm=lm) else "predicted to fit"
        warnings.append(
            f"Songs of up to {minutes(longest)} are {how} this card {thinking} ({source}): "
            f"{minutes(request.duration_s)} was cut to {minutes(duration)}."
        )
    batch = next(size for size in range(request.batch, 0, -1) if plan.longest(size, lm=lm) >= duration)
    if batch < request.batch:
        warnings.append(
            f"Up to {batch} {'song' if batch == 1 else 'songs'} of {minutes(duration)} at once are certified on this "
            f"card {thinking} ({source}): the batch of {request.batch} was cut to {batch}."
        )
    elif plan.frontier.longest(batch, lm=lm) < duration:
        warnings.append(
            f"A batch of {batch} of {minutes(duration)} is more than is certified on this card {thinking} ({source})."
            " It is predicted to fit with fewer songs at a time."
        )
    if not request.duration_s:
        longest_s = min(request.thinking.longest_s, plan.longest(batch, lm=lm))
        if longest_s < SHORTEST_PLAN_S:
            return msgspec.structs.replace(request, batch=batch, duration_s=duration), tuple(warnings)
        within = msgspec.structs.replace(request.thinking, longest_s=longest_s)
        return msgspec.structs.replace(request, batch=batch, thinking=within), tuple(warnings)
    return msgspec.structs.replace(request, duration_s=duration, batch=batch), tuple(warnings)


def _evidence(plan: Plan) -> str:
    evidence = plan.evidence.get("frontier")
    if evidence is None:
        return "no evidence recorded"
    return f"{evidence.kind} {short_digest(evidence.record)}".strip()


def _on_second_card(
    overrides: Overrides, limits: Tier, card: Card, duration_s: float, room_bytes: int, notes: list[str]
) -> Overrides:
    """Return the overrides without a language model that does not fit on its own card, in the wished weight format."""
    wish, weights = overrides.lm, overrides.lm_quantization
    if wish not in LM_MODELS or not moves_weights(card):
        return overrides
    needed = lm_bytes_on(card, Knobs(lm=wish, lm_quantization=None if weights is UNSET else weights), duration_s)
    if needed <= room_bytes:
        return overrides
    notes.append(lm_refusal(card, wish, needed, room_bytes, limits.recommended_lm))
    return msgspec.structs.replace(overrides, lm=limits.recommended_lm)
