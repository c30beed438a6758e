"""The cards of scenarios: real ones by everything that a program can read of them."""

from acestep.hardware.card import SIMULATED_CAPABILITY, Card, CardKind
from acestep.units import gib_to_bytes

_NAMES = {8: "NVIDIA GeForce RTX 3070", 16: "NVIDIA RTX A4000", 24: "NVIDIA GeForce RTX 3090"}
"""A card of each size that has the simulated capability."""

_UUID, _DRIVER = "GPU-5f0c1d3e-8a42-4b7e-9d16-2c7b3a90e4f8", "550.54.14"


def card_of(size_gib: float) -> Card:
    """Return a card of a size in GiB: 8, 16 or 24."""
    return Card(
        kind=CardKind.CUDA,
        name=_NAMES[int(size_gib)],
        uuid=_UUID,
        total_bytes=gib_to_bytes(size_gib),
        capability=SIMULATED_CAPABILITY,
        driver=_DRIVER,
    )
