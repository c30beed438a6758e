"""The marks of a virtual card: a card that has memory and computes nothing (`virtual_card/`), so it measures no speed.

Each mark stands for itself: a card with one of them is virtual, whatever its other names say. Pure.
"""

from typing import Final

NAME: Final = "virtual"
"""How the name of a virtual card begins, in lower case."""

UUID: Final = "76697274-7561-6c"
"""How its UUID goes on after GPU- or MIG-: the word "virtual" in ASCII."""

DRIVER: Final = "virtual-"
"""How its driver's version begins."""


def virtual_marks(*, name: str, uuid: str, driver: str) -> dict[str, str]:
    """Which of the three say that a card is virtual, by the name of the field."""
    marks = {
        "name": (name, name.strip().lower().startswith(NAME)),
        "uuid": (uuid, uuid.strip().lower().removeprefix("gpu-").removeprefix("mig-").startswith(UUID)),
        "driver": (driver, driver.strip().lower().startswith(DRIVER)),
    }
    return {field: text for field, (text, marked) in marks.items() if marked}
