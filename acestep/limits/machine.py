"""The machine's part of a plan: its card, the table in force and the installed packages."""

import logging
import os
from collections.abc import Sequence
from importlib.util import find_spec

import msgspec

from acestep.adapter_memory import NO_ADAPTERS, AdapterMemory
from acestep.hardware.card import CONTEXT_BYTES, Card, planning_card
from acestep.hardware.detection import LM_DEVICE_VARIABLE, Detection, look
from acestep.hardware.detection.nvml import free_now
from acestep.hardware.processor import multiplies_bfloat16
from acestep.limits.beside_adapters import beside_adapters
from acestep.limits.capabilities import dtype_name
from acestep.limits.fallbacks import moves_weights
from acestep.limits.free_now import fit_now
from acestep.limits.plan import AS_THE_TIER_SAYS, Overrides, Plan, on_device, resolve
from acestep.limits.room import question_of, songs_room
from acestep.limits.unlocked import instead_of_streaming, kept_whole, streams_unlocked
from acestep.request import Request
from acestep.tiers import tiers_here
from acestep.units import gib

_LOG = logging.getLogger(__name__)


def installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    return find_spec(package) is not None


def plan_here(overrides: Overrides = AS_THE_TIER_SAYS, card: Card | None = None) -> Plan:
    """Return the plan of this machine's card, or of `card`, under the table in force.

    This machine's plan begins its warnings with remarks about the cards here.
    """
    if card is None:
        return plan_of(look(os.environ), overrides)
    second = look(os.environ).lm_card if os.environ.get(LM_DEVICE_VARIABLE) else None
    return plan_of_card(overrides, card, lm_card=second)


def plan_now(
    overrides: Overrides, card: Card | None, free_bytes: int | None, adapters: AdapterMemory = NO_ADAPTERS
) -> Plan:
    """Return the same plan as a song of the usual length would be made with `free_bytes` of memory.

    By default that is what is free on this machine's card now. A run looks by itself at the start of each request.
    `adapters` are those that are not part of the weights.
    """
    plan = plan_here(overrides, card)
    plan = _beside(plan, None, adapters)
    if free_bytes is None and not plan.card.imagined and (found := free_now(plan.card)) is not None:
        free_bytes = max(0, found - CONTEXT_BYTES)
    known = tiers_here().variants.get(plan.variant)
    if free_bytes is None or known is None:
        return plan
    apart = plan.lm_card is not None
    question = question_of(None, plan.card, plan.variant, thinks=plan.init_lm, lm_apart=apart, adapters=adapters)
    return fit_now(plan, question, known.memory_model, free_bytes)


def plan_of(
    found: Detection,
    overrides: Overrides = AS_THE_TIER_SAYS,
    request: Request | None = None,
    adapters: AdapterMemory = NO_ADAPTERS,
) -> Plan:
    """Return the plan of the detected card, or of the size that the environment sets, for a request if there is one.

    `adapters` are those that are not part of the weights.
    """
    card = planning_card(os.environ, found.card)
    plan = _locked(plan_of_card(overrides, card, request, found.lm_card), overrides, request)
    plan = _beside(plan, request, adapters)
    return with_remarks(plan, found.remarks)


def with_remarks(plan: Plan, remarks: Sequence[str]) -> Plan:
    """Return the plan with sentences before its own warnings."""
    return msgspec.structs.replace(plan, warnings=(*remarks, *plan.warnings)) if remarks else plan


def plan_of_card(overrides: Overrides, card: Card, request: Request | None = None, lm_card: Card | None = None) -> Plan:
    """The plan of a card under the table in force and the packages here, for a request if there is one.

    The language model runs on `lm_card` if given.
    """
    _LOG.info("the card is %s (%s, %s)", card.name, card.kind, gib(card.total_bytes))
    plan = resolve(
        card,
        tiers_here(),
        overrides,
        request,
        lm_card=lm_card,
        torchao_available=installed("torchao"),
        flash_attn_available=installed("flash_attn"),
    )
    plan = _with_dtype(plan, card)
    _log_plan("the plan", plan)
    return plan


def _locked(plan: Plan, overrides: Overrides, request: Request | None) -> Plan:
    """Return the plan with whole INT8 weights where main memory cannot lock streamed ones.

    Only where these fit and no song has to be shorter.
    """
    known = tiers_here().variants.get(plan.variant)
    if known is None or plan.card.imagined or not moves_weights(plan.card):
        return plan
    # psutil, which is imported with it, is of no use to other plans.
    from acestep.hardware.host import lockable_bytes

    lockable = lockable_bytes()
    if not streams_unlocked(plan, known.memory_model, lockable):
        return plan
    wish = kept_whole(overrides)
    whole = None if wish is None else plan_of_card(wish, plan.card, request, plan.lm_card)
    return instead_of_streaming(plan, whole, known.memory_model, lockable)


def _beside(plan: Plan, request: Request | None, adapters: AdapterMemory) -> Plan:
    """Return the plan with the offload that a request with adapters beside the weights needs."""
    table = tiers_here()
    known = table.variants.get(plan.variant)
    if known is None or adapters == NO_ADAPTERS:
        return plan
    thinks = plan.init_lm if request is None else request.thinks
    apart = plan.lm_card is not None
    question = question_of(request, plan.card, plan.variant, thinks=thinks, lm_apart=apart, adapters=adapters)
    return beside_adapters(plan, question, known.memory_model, songs_room(plan.card, table))


def carried_out(plan: Plan, card: Card) -> Plan:
    """Return the plan as a card can carry it out with the installed packages."""
    carried = on_device(
        plan, card, torchao_available=installed("torchao"), flash_attn_available=installed("flash_attn")
    )
    carried = _with_dtype(carried, card)
    _log_plan(f"the plan on {card.name}", carried)
    return carried


def _with_dtype(plan: Plan, card: Card) -> Plan:
    """Return the plan with the type in which songs are made on the card."""
    dtype = dtype_name(card, plan.variant, cpu_bfloat16=multiplies_bfloat16())
    return msgspec.structs.replace(plan, dtype=dtype)


def _log_plan(what: str, plan: Plan) -> None:
    told = msgspec.to_builtins(plan.knobs) if _LOG.isEnabledFor(logging.INFO) else {}
    settings = ", ".join(f"{name} {'none' if value is None else value}" for name, value in told.items())
    _LOG.info("%s: %s, %s", what, plan.tier, settings)
