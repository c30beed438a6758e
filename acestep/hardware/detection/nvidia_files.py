"""NVIDIA cards in the system files of their kernel driver, for machines on which NVML does not answer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from acestep.hardware.card import Card, CardKind
from acestep.hardware.card_sizes import catalogued
from acestep.hardware.detection.answers import Answer, Problem, Source, one_line
from acestep.hardware.detection.drm import NVIDIA, read
from acestep.hardware.detection.families import capability_of, machine_bytes, shares_memory
from acestep.hardware.detection.visible import CUDA_VARIABLE, cuda_visible
from acestep.units import GIB

DRIVER_FILES = Path("/proc/driver/nvidia/gpus")
PCI_FILES = Path("/sys/bus/pci/devices")
DEVICE_FILES = Path("/dev")

_DISPLAY = "0x03"
"""The beginning of the PCI class of display controllers."""

_SIGNS = ("nvidia[0-9]*", "nvhost-gpu", "dxg")
"""Files through which programs reach a card: of the driver, of boards with a Tegra, and of Windows below WSL."""


_UNKNOWN = Problem(
    sentence=f"{CUDA_VARIABLE} names a card by a UUID that these files do not have, so only torch can describe it.",
    advice="A run asks torch; acestep doctor --ask-torch does, too.",
)


def ask_nvidia_files(
    environ: Mapping[str, str], root: Path = DRIVER_FILES, pci: Path = PCI_FILES, devices: Path = DEVICE_FILES
) -> Answer:
    """Return the cards that the kernel driver lists, with the sizes in their names; 0 bytes if a name has none.

    A card on the bus that NVIDIA's driver does not list is a problem and not a card, unless the environment hides all.
    """
    found = [card for entry in _entries(root) if (card := _card(entry)) is not None]
    text = environ.get(CUDA_VARIABLE)
    shown = cuda_visible(text, [card.uuid for card in found])
    if found and not shown and _names_unknown(text, found):
        return Answer(source=Source.NVIDIA_FILES, asked=str(root), problems=(_UNKNOWN,))
    return Answer(
        source=Source.NVIDIA_FILES,
        asked=f"{root}, {pci}, {devices}",
        cards=tuple(found[index] for index in shown),
        hidden=tuple(card for index, card in enumerate(found) if index not in shown),
        problems=() if found or _hides_all(text) else (*_not_reached(pci), *_undescribed(devices)),
    )


def _entries(root: Path) -> list[Path]:
    try:
        return sorted(root.iterdir())
    except OSError:
        return []


def _card(entry: Path) -> Card | None:
    lines = (line.partition(":") for line in read(entry / "information").splitlines())
    told = {key.strip(): one_line(value) for key, _, value in lines}
    if "Model" not in told:
        return None
    uuid, name = told.get("GPU UUID", ""), told["Model"]
    sizes, unified = catalogued(name), shares_memory(name)
    return Card(
        kind=CardKind.CUDA,
        name=name,
        uuid="" if "?" in uuid else uuid,
        total_bytes=machine_bytes() if unified else sizes[0] * GIB if sizes else 0,
        capability=capability_of(name),
        unified=unified,
    )


def _names_unknown(text: str | None, found: Sequence[Card]) -> bool:
    """Return whether a list names slices, or UUIDs where the driver has not given every card its UUID yet."""
    first = (text or "").strip()
    return first.startswith("MIG-") or (first.startswith("GPU-") and not all(card.uuid for card in found))


def _hides_all(text: str | None) -> bool:
    return text is not None and text.strip() in ("", "-1")


def _undescribed(devices: Path) -> list[Problem]:
    """Return a problem if a card may be reachable that no system file describes, as in many containers."""
    signs = [str(sign) for pattern in _SIGNS for sign in sorted(devices.glob(pattern))]
    if not signs:
        return []
    return [
        Problem(
            sentence=f"{signs[0]} is here, so there may be a card that only torch can describe.",
            advice="A run asks torch; acestep doctor --ask-torch does, too.",
        )
    ]


def _not_reached(pci: Path) -> list[Problem]:
    """Return a problem for each NVIDIA card on the bus that NVIDIA's driver does not hold or open."""
    problems = []
    for device in _entries(pci):
        if read(device / "vendor") != NVIDIA or not read(device / "class").startswith(_DISPLAY):
            continue
        lines = read(device / "uevent").splitlines()
        driver = next((line.removeprefix("DRIVER=") for line in lines if line.startswith("DRIVER=")), "")
        card = f"An NVIDIA card is at {device.name}, and"
        if driver == "nvidia":
            problem = Problem(
                sentence=f"{card} nothing here gives access to its driver.",
                advice="In a container, pass the card in (docker run --gpus all).",
            )
        elif driver:
            problem = Problem(
                sentence=f"{card} the driver {driver} holds it, with which torch cannot use it.",
                advice="Give it NVIDIA's own driver and restart.",
            )
        else:
            problem = Problem(sentence=f"{card} no driver holds it.", advice="Install NVIDIA's driver and restart.")
        problems.append(problem)
    return problems
