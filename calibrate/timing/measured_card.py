"""The card that a person names: one whose speed is known, or the one that `acestep doctor --measure` was run on."""

from pathlib import Path

import msgspec

from acestep.errors import InvalidInputError
from acestep.hardware.card import CardKind
from acestep.hardware.speed import MeasuredSpeed
from acestep.strict_json import read_as
from acestep.units import GIB
from calibrate.timing.cards import CardSpeed, card_speed
from calibrate.timing.roofline import BUS_SHARE, MEMORY_SHARE, PRODUCTS_SHARE


class _DoctorDocument(msgspec.Struct, frozen=True):
    """What is read of the document of `acestep doctor --json`."""

    speed: MeasuredSpeed | None = None


def card_or_file(named: str) -> CardSpeed:
    """Return the card of a name, or of a file that `acestep doctor --measure --json` wrote.

    Raises `UsageError` for an unknown name, and `InvalidInputError` for a file without the speed of an NVIDIA card.
    """
    path = Path(named)
    return _measured_card(path) if path.is_file() else card_speed(named)


def _measured_card(path: Path) -> CardSpeed:
    speed = read_as(path, _DoctorDocument).speed
    if speed is None:
        raise InvalidInputError(path, "has no measured speed; write it with `acestep doctor --measure --json`")
    if speed.kind is not CardKind.CUDA:
        raise InvalidInputError(
            path, f"is about {speed.name} ({speed.kind}); songs are estimated for NVIDIA cards only"
        )
    return speed_of(speed, path.name)


def speed_of(speed: MeasuredSpeed, source: str) -> CardSpeed:
    """Return the card whose peaks give the measured rates, because an estimate takes a share of each peak.

    What is measured is what an ideal kernel reaches, so the other kinds of kernels keep their relation to it.
    """
    return CardSpeed(
        name=speed.name,
        vram_gib=speed.total_bytes / GIB,
        capability=".".join(map(str, speed.capability)),
        tflops=speed.products_tflops / PRODUCTS_SHARE,
        memory_gbs=speed.copy_gbs / MEMORY_SHARE,
        bus_gbs=(speed.bus_gbs if speed.bus_gbs is not None else speed.copy_gbs) / BUS_SHARE,
        source=source,
        launch_s=speed.launch_us / 1e6,
    )
