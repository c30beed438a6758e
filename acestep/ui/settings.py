"""A plan as the settings that show it, and settings as the wishes that a plan is made from. Pure."""

from typing import Any

import msgspec

from acestep.errors import UsageError
from acestep.hardware.card import Card, simulated_card
from acestep.knobs import Attention, Offload, Quantization, Variant
from acestep.limits.fallbacks import moves_weights
from acestep.limits.plan import Overrides, Plan, overrides_from
from acestep.request import MAX_DURATION_S
from acestep.tiers import BATCHES, TierTable

THIS_CARD = "this card"
"""The choice of the tier selector that is no tier."""

NONE = "none"
"""How null is written in a selector."""

_STREAMS = (NONE, Offload.STREAM.value, Offload.STREAM_ENCODERS.value)
_WEIGHTS = (NONE, *(member.value for member in Quantization))


class Controls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the settings are set to. `lm` is "" where there is no language model.

    Offload is two boxes, parts beside the transformer and the transformer too, and a selector of what is streamed.
    """

    tier: str = THIS_CARD
    init_lm: bool = False
    lm: str = ""
    backend: str = "pt"
    offload_cpu: bool = False
    offload_dit: bool = False
    offload_stream: str = NONE
    quantization: str = NONE
    lm_quantization: str = NONE
    attention: str = Attention.AUTO.value
    compile: bool = False


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One control: its value, what else it may be, and whether it can be changed."""

    value: str | bool
    choices: tuple[str, ...] = ()
    interactive: bool = True


def cards(table: TierTable, variant: Variant, here: Card) -> dict[str, Card]:
    """The cards to choose among: the one that is here, and for each tier the smallest that is certified."""
    known = table.variants.get(variant, table.variants[Variant.TURBO])
    return {THIS_CARD: here} | {tier.id: simulated_card(tier.certified_gib) for tier in known.tiers}


def controls_of(plan: Plan, *, tier: str, init_lm: bool) -> Controls:
    """The settings that a plan comes down to; thinking unasked needs a language model."""
    offload = list(Offload).index(plan.offload)
    return Controls(
        tier=tier,
        init_lm=init_lm and plan.lm is not None,
        lm=plan.lm or "",
        backend=plan.backend,
        offload_cpu=offload >= list(Offload).index(Offload.CPU),
        offload_dit=offload >= list(Offload).index(Offload.CPU_DIT),
        offload_stream=plan.offload if plan.offload in _STREAMS else NONE,
        quantization=plan.quantization or NONE,
        lm_quantization=plan.lm_quantization or NONE,
        attention=plan.attention,
        compile=plan.compile,
    )


def overrides_of(controls: Controls, variant: Variant) -> Overrides:
    """The wishes that settings stand for; `UsageError` for a value that no setting has."""
    return overrides_from(
        {
            "variant": variant,
            "lm": controls.lm or NONE,
            "backend": controls.backend,
            "offload": _offload(controls),
            "quantization": controls.quantization,
            "lm_quantization": controls.lm_quantization,
            "attention": controls.attention,
            "compile": controls.compile,
        }
    )


def settings_of(controls: Controls, plan: Plan, tiers: tuple[str, ...]) -> dict[str, Setting]:
    """Every control by its name: set to `controls`, limited to what the plan's card and tier have."""
    moves = moves_weights(plan.card)
    streamed = controls.offload_stream != NONE
    has_lm = bool(plan.lm_models)
    weights = _WEIGHTS if moves else (NONE,)
    return {
        "tier": Setting(value=controls.tier, choices=tiers),
        "init_lm": Setting(value=controls.init_lm, interactive=has_lm),
        "lm": Setting(value=controls.lm, choices=plan.lm_models, interactive=has_lm),
        "backend": Setting(
            value=controls.backend, choices=tuple(plan.backends_allowed), interactive=len(plan.backends_allowed) > 1
        ),
        "offload_cpu": Setting(value=controls.offload_cpu, interactive=moves and not streamed),
        "offload_dit": Setting(value=controls.offload_dit, interactive=moves and controls.offload_cpu and not streamed),
        "offload_stream": Setting(value=controls.offload_stream, choices=_STREAMS, interactive=moves),
        "quantization": Setting(value=controls.quantization, choices=weights, interactive=moves),
        "lm_quantization": Setting(value=controls.lm_quantization, choices=weights, interactive=moves and has_lm),
        "attention": Setting(value=controls.attention, choices=tuple(Attention)),
        "compile": Setting(value=controls.compile),
    }


def controls_from(values: dict[str, Any]) -> Controls:
    """Settings as a browser sends them, null for the usual; `UsageError` naming one that is of another kind."""
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return msgspec.convert(given, Controls)
    except msgspec.ValidationError as error:
        raise UsageError(f"a setting cannot be used: {error}") from None


def _offload(controls: Controls) -> str:
    """Unchecking the first box unchecks the second, which can only be checked after it."""
    if controls.offload_stream != NONE:
        return controls.offload_stream
    if not controls.offload_cpu:
        return Offload.NONE
    return Offload.CPU_DIT if controls.offload_dit else Offload.CPU


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The largest batch, the longest song in seconds, and what is left of a wish within both; 0 s stays open.

    `can_think` says whether there is a language model at all.
    """

    max_batch: int
    max_duration_s: int
    batch: int
    duration_s: float
    can_think: bool


def limits_of(plan: Plan, *, think: bool, batch: int, duration_s: float) -> Limits:
    """The ends of both sliders. A larger batch shortens the songs.

    `acestep.limits.plan.clamp` does the opposite: a longer song makes the batch smaller.

    Where not even one song is certified, one of any length may be tried.
    """
    lm = think and plan.lm is not None
    most = max((size for size in BATCHES if plan.frontier.longest(size, lm=lm)), default=1)
    batch = min(max(batch, 1), most)
    longest = plan.frontier.longest(batch, lm=lm) or int(MAX_DURATION_S)
    return Limits(
        max_batch=most,
        max_duration_s=longest,
        batch=batch,
        duration_s=min(duration_s, longest),
        can_think=plan.lm is not None,
    )
