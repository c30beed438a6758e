"""What this machine brings to a plan: its card, the table in force and the packages installed."""

import logging
import os
from importlib.util import find_spec

import msgspec

from acestep.hardware import Card, detect, planning_card
from acestep.plan import AS_THE_TIER_SAYS, Overrides, Plan, on_device, resolve
from acestep.tiers import load_tiers
from acestep.units import gib

_LOG = logging.getLogger(__name__)


def installed(package: str) -> bool:
    """Whether a package could be imported, without importing it."""
    return find_spec(package) is not None


def this_card() -> Card:
    """The card to plan for here: what was detected, or the size the environment asks for."""
    card = planning_card(os.environ, detect(os.environ))
    _LOG.info("the card is %s (%s, %s)", card.name, card.kind, gib(card.total_bytes))
    return card


def plan_here(overrides: Overrides = AS_THE_TIER_SAYS, card: Card | None = None) -> Plan:
    """The plan of this machine's card, or of another, under the table in force."""
    plan = resolve(
        this_card() if card is None else card,
        load_tiers(),
        overrides,
        torchao_available=installed("torchao"),
        flash_attn_available=installed("flash_attn"),
    )
    _log_plan("the plan", plan)
    return plan


def carried_out(plan: Plan, card: Card) -> Plan:
    """The plan as a card can carry it out with what is installed here."""
    carried = on_device(
        plan, card, torchao_available=installed("torchao"), flash_attn_available=installed("flash_attn")
    )
    _log_plan(f"the plan on {card.name}", carried)
    return carried


def _log_plan(what: str, plan: Plan) -> None:
    told = msgspec.to_builtins(plan.knobs) if _LOG.isEnabledFor(logging.INFO) else {}
    settings = ", ".join(f"{name} {'none' if value is None else value}" for name, value in told.items())
    _LOG.info("%s: %s, %s", what, plan.tier, settings)
