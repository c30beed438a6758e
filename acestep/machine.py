"""What this machine brings to a plan: its card, the table in force and the packages installed."""

import os
from importlib.util import find_spec

from acestep.hardware import Card, detect, planning_card
from acestep.plan import AS_THE_TIER_SAYS, Overrides, Plan, on_device, resolve
from acestep.tiers import load_tiers


def installed(package: str) -> bool:
    """Whether a package could be imported, without importing it."""
    return find_spec(package) is not None


def this_card() -> Card:
    """The card to plan for here: what was detected, or the size the environment asks for."""
    return planning_card(os.environ, detect(os.environ))


def plan_here(overrides: Overrides = AS_THE_TIER_SAYS, card: Card | None = None) -> Plan:
    """The plan of this machine's card, or of another, under the table in force."""
    return resolve(
        this_card() if card is None else card,
        load_tiers(),
        overrides,
        torchao_available=installed("torchao"),
        flash_attn_available=installed("flash_attn"),
    )


def carried_out(plan: Plan, card: Card) -> Plan:
    """The plan as a card can carry it out with what is installed here."""
    return on_device(plan, card, torchao_available=installed("torchao"), flash_attn_available=installed("flash_attn"))
