"""The marks of a virtual card: a card that has memory and computes nothing (`virtual_card/`), so it measures no speed.

One mark is enough: a card with one of them is virtual, whatever the others say. Pure.
"""

from typing import Final

NAME: Final = "virtual"
"""The beginning of a virtual card's name, in lower case."""

UUID: Final = "76697274-7561-6c"
"""The beginning of its UUID after GPU- or MIG-: the word "virtual" in ASCII."""

DRIVER: Final = "virtual-"
"""The beginning of its driver's version."""


def virtual_marks(*, name: str, uuid: str, driver: str) -> dict[str, str]:
    """Return the marks of a virtual card among the three texts, by the name of the field."""
    marks = {
        "name": (name, name.strip().lower().startswith(NAME)),
        "uuid": (uuid, uuid.strip().lower().removeprefix("gpu-").removeprefix("mig-").startswith(UUID)),
        "driver": (driver, driver.strip().lower().startswith(DRIVER)),
    }
    return {field: text for field, (text, marked) in marks.items() if marked}
