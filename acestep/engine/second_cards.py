"""The cards that language models have for themselves."""

from collections.abc import Callable

from acestep.checkpoints.catalog import SIZES
from acestep.devices.base import Device
from acestep.errors import NotEnoughMemoryError
from acestep.hardware.card import Card
from acestep.limits.plan import Plan
from acestep.limits.second_card import lm_bytes_on
from acestep.request import DEFAULT_DURATION_S
from acestep.units import gib


class SecondCards:
    """Opens each card once, by `open_card`."""

    def __init__(self, open_card: Callable[[Card], Device]) -> None:
        self._open = open_card
        self._devices: dict[Card, Device] = {}

    def device_for(self, plan: Plan, card: Card, model: str) -> Device:
        """Return the device of a plan's second card; raise `NotEnoughMemoryError` if too little of it is free now."""
        if card not in self._devices:
            self._devices[card] = self._open(card)
        device = self._devices[card]
        needed, free = lm_bytes_on(card, plan.knobs, DEFAULT_DURATION_S), device.free_bytes()
        if model not in SIZES and not device.shares_host_memory and needed > free:
            raise NotEnoughMemoryError(
                f"language model {plan.lm} needs {gib(needed)}, and {gib(free)} of {card.name} are free; choose a"
                " smaller one with --lm, or close other programs that use that card"
            )
        return device
