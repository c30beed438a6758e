"""The cards of a tier whose speeds are known, what they plan, and the digest of what their times follow from."""

from acestep.budgets import System
from acestep.evidence import Evidence, EvidenceKind
from acestep.hardware.card import Card, CardKind
from acestep.knobs import Variant
from acestep.limits.capabilities import AMPERE
from acestep.limits.plan import Overrides, Plan, resolve
from acestep.song_times import LENGTHS_S
from acestep.tiers import Tier, TierTable
from acestep.units import gib_to_bytes
from calibrate.files import digest
from calibrate.timing import roofline
from calibrate.timing.cards import CardSpeed, CardUse, known_cards


def made_from(table: TierTable, variant: Variant, tier: Tier) -> str:
    """Return the digest of all that a tier's times follow from."""
    linux = table.on(System.LINUX)
    constants = {name: getattr(roofline, name) for name in dir(roofline) if name.isupper()}
    cards = sold_in(tier)
    plans = [planned_for(linux, variant, card) for card in cards]
    planned = [(plan.knobs, plan.lm_models, plan.backends_allowed) for plan in plans]
    rooms = [linux.room_bytes(size) for size in (tier.certified_gib, *(card.vram_gib for card in cards))]
    record = tier.evidence["frontier"].record
    return digest((record, tier.offload, tier.quantization, LENGTHS_S, constants, cards, planned, rooms))


def times_evidence(tier: Tier) -> Evidence:
    """Return what a tier's times rest on: the record that decides the tier, and published speeds."""
    return Evidence(kind=EvidenceKind.ESTIMATED, record=tier.evidence["frontier"].record)


def sold_in(tier: Tier) -> list[CardSpeed]:
    """Return the cards of a tier that the table has times of, without those before Ampere.

    What those do in float16 is not simulated.
    """
    return [
        card
        for card in known_cards()
        if card.use is not CardUse.ESTIMATE and card.vram_gib in tier.vram_gib and card.compute_capability >= AMPERE
    ]


def planned_for(table: TierTable, variant: Variant, speed: CardSpeed) -> Plan:
    """Return the plan of a card under a table, without compiling."""
    size, capability = gib_to_bytes(speed.vram_gib), speed.compute_capability
    card = Card(kind=CardKind.CUDA, name=speed.name, total_bytes=size, capability=capability, imagined=True)
    return resolve(card, table, Overrides(variant=variant, compile=False))
