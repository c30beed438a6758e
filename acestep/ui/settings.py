"""Converts a plan to the settings that show it, and settings to the overrides of a plan. Pure."""

from typing import Any

import msgspec

from acestep.hardware.card import Card, simulated_card
from acestep.knobs import KNOBS, NONE_NAMES, Knob, Offload, Variant
from acestep.limits.fallbacks import moves_weights
from acestep.limits.plan import Overrides, Plan, overrides_from
from acestep.request import MAX_DURATION_S
from acestep.tiers import BATCHES, TierTable
from acestep.typed import from_user

THIS_CARD = "this card"
"""The choice of the tier selector that is no tier."""

NONE = NONE_NAMES[0]
"""The text for null in a selector."""

_BOXES: dict[str, str | bool] = {"offload_cpu": False, "offload_dit": False, "offload_stream": NONE}
"""The controls of offload, off: parts beside the transformer, the transformer too, and a selector of what streams."""

_STREAMS = (NONE, *(mode.value for mode in Offload if mode not in (Offload.NONE, Offload.CPU, Offload.CPU_DIT)))


def _written(knob: Knob, value: Any) -> str | bool:
    """A knob's value as its control has it; no language model is ""."""
    if value is None:
        return "" if knob.name == "lm" else NONE
    return bool(value) if knob.is_switch else str(value)


_SINGLE = {name: knob for name, knob in KNOBS.items() if name not in ("variant", "offload")}
"""The knobs with one control, which has the knob's name: a box for a switch, else a selector of its values."""


def _rows() -> tuple[tuple[str, ...], ...]:
    rows: list[tuple[str, ...]] = []
    for name in KNOBS:
        if name == "offload":
            rows += [("offload_cpu", "offload_dit"), ("offload_stream",)]
        elif name in _SINGLE and rows and len(rows[-1]) == 1 and rows[-1][0] in _SINGLE:
            rows[-1] += (name,)
        elif name in _SINGLE:
            rows.append((name,))
    return tuple(rows)


CONTROL_ROWS = _rows()
"""The controls of the knobs as they stand on the page, two in a row."""

SAVING = (*_BOXES, *(name for name, knob in _SINGLE.items() if knob.saves and not knob.of_lm))
"""The controls that change how much memory making a song takes, whatever plans it."""

_USUAL = _BOXES | {name: _written(knob, knob.default) for name, knob in _SINGLE.items()}

_Settings = msgspec.defstruct(
    "_Settings",
    [
        ("tier", str, THIS_CARD),
        ("init_lm", bool, False),
        *((name, type(_USUAL[name]), _USUAL[name]) for row in CONTROL_ROWS for name in row),
    ],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
)


class Controls(_Settings):  # type: ignore[misc, valid-type]  # the controls of every knob
    """The values of all settings. `lm` is "" if there is no language model."""


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
    """Return the settings that show a plan; `init_lm` needs a language model."""
    return Controls(
        tier=tier,
        init_lm=init_lm and plan.lm is not None,
        offload_cpu=plan.offload is not Offload.NONE,
        offload_dit=plan.offload not in (Offload.NONE, Offload.CPU),
        offload_stream=plan.offload if plan.offload in _STREAMS else NONE,
        **{name: _written(knob, getattr(plan, name)) for name, knob in _SINGLE.items()},
    )


def overrides_of(controls: Controls, variant: Variant) -> Overrides:
    """Return the overrides that settings ask for; raise `UsageError` for a value that no setting has."""
    return overrides_from(
        {
            **{name: getattr(controls, name) for name in _SINGLE},
            "variant": variant,
            "lm": controls.lm or NONE,
            "offload": _offload(controls),
        }
    )


def settings_of(controls: Controls, plan: Plan, tiers: tuple[str, ...]) -> dict[str, Setting]:
    """Every control by its name: set to `controls`, limited to what the plan's card and tier have."""
    moves = moves_weights(plan.card)
    streamed = controls.offload_stream != NONE
    has_lm = bool(plan.lm_models)
    single = {
        name: Setting(
            value=getattr(controls, name),
            choices=() if knob.is_switch else tuple(str(_written(knob, value)) for value in knob.values),
            interactive=has_lm or not knob.of_lm,
        )
        for name, knob in _SINGLE.items()
    }
    if not moves:
        single |= {
            name: Setting(value=getattr(controls, name), choices=(NONE,), interactive=False)
            for name, knob in _SINGLE.items()
            if knob.saves
        }
    return {
        **single,
        "tier": Setting(value=controls.tier, choices=tiers),
        "init_lm": Setting(value=controls.init_lm, interactive=has_lm),
        "lm": Setting(value=controls.lm, choices=plan.lm_models, interactive=has_lm),
        "backend": Setting(
            value=controls.backend, choices=tuple(plan.backends_allowed), interactive=len(plan.backends_allowed) > 1
        ),
        "offload_cpu": Setting(value=controls.offload_cpu, interactive=moves and not streamed),
        "offload_dit": Setting(value=controls.offload_dit, interactive=moves and controls.offload_cpu and not streamed),
        "offload_stream": Setting(value=controls.offload_stream, choices=_STREAMS, interactive=moves),
    }


def controls_from(values: dict[str, Any]) -> Controls:
    """Settings as a browser sends them, null for the usual; `UsageError` naming one that is of another kind."""
    given = {name: value for name, value in values.items() if value is not None}
    return from_user(given, Controls, "a setting cannot be used: {}")


def _offload(controls: Controls) -> str:
    """Unchecking the first box unchecks the second, which can only be checked after it."""
    if controls.offload_stream != NONE:
        return str(controls.offload_stream)
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
    most = max((size for size in BATCHES if plan.longest(size, lm=lm)), default=1)
    batch = min(max(batch, 1), most)
    longest = plan.longest(batch, lm=lm) or int(MAX_DURATION_S)
    return Limits(
        max_batch=most,
        max_duration_s=longest,
        batch=batch,
        duration_s=min(duration_s, longest),
        can_think=plan.lm is not None,
    )
