"""The cards that a loaded torch would open, in the order of its indices, and the reason if it would open none."""

import re
import warnings
from typing import Any

from acestep.errors import first_line
from acestep.hardware.card import Card, CardKind
from acestep.hardware.detection.answers import Answer, Problem, Source, one_line

_CPU_ONLY = "is built for the CPU, or finds no card"
_UNIQUE_ID = re.compile("[0-9a-f]{16}")


def ask_torch(torch: Any) -> Answer:
    """Return the cards of the backend of this torch. The call initialises the driver."""
    asked = f"torch {torch.__version__}"
    try:
        with warnings.catch_warnings():
            # Torch warns about a driver that does not answer; here the reason is part of the answer.
            warnings.simplefilter("ignore")
            cards, problems = _cards(torch)
    except Exception as error:
        return Answer(source=Source.TORCH, asked=asked, problems=(_refusal(error),))
    return Answer(source=Source.TORCH, asked=asked, cards=tuple(cards), problems=tuple(problems))


def torch_index(torch: Any, card: Card) -> int:
    """Return the index that torch gives a card; 0 if torch does not list it under its own name."""
    try:
        listed, _ = _cards(torch)
    except Exception:
        return 0
    by_name = (
        index
        for index, other in enumerate(listed)
        if not other.uuid and other.name == card.name and other.total_bytes >= card.total_bytes
    )
    by_uuid = (index for index, other in enumerate(listed) if is_same(other, card))
    return next(by_uuid, next(by_name, 0))


def is_same(one: Card, other: Card) -> bool:
    """Return whether two sources mean the same card, by its permanent identity in any spelling."""
    return one.kind is other.kind and bool(one.uuid) and identity(one.uuid) == identity(other.uuid)


def identity(uuid: str) -> str:
    """A UUID without its prefix and dashes, in lower case."""
    bare = uuid.lower()
    for prefix in ("gpu-", "mig-"):
        bare = bare.removeprefix(prefix)
    return bare.replace("-", "")


def _cards(torch: Any) -> tuple[list[Card], list[Problem]]:
    if torch.version.cuda is not None or torch.version.hip is not None:
        return _of_cuda(torch)
    if torch.backends.mps.is_available():
        size = int(torch.mps.recommended_max_memory())
        return [Card(kind=CardKind.MPS, name="Apple GPU", total_bytes=size, unified=True)], []
    if torch.xpu.is_available():
        return [_of_xpu(torch.xpu.get_device_properties(index)) for index in range(torch.xpu.device_count())], []
    return [], [Problem(sentence=f"torch {torch.__version__} {_CPU_ONLY}.", serious=False)]


def _of_cuda(torch: Any) -> tuple[list[Card], list[Problem]]:
    if not torch.cuda.is_available():
        try:
            torch.cuda.init()
        except Exception as error:
            return [], [_refusal(error)]
        return [], [Problem(sentence="torch finds no card.", serious=False)]
    kind = CardKind.CUDA if torch.version.hip is None else CardKind.ROCM
    cards, problems = [], []
    for index in range(torch.cuda.device_count()):
        try:
            cards.append(_of_properties(torch.cuda.get_device_properties(index), kind))
        except Exception as error:
            problems.append(Problem(sentence=f"torch cannot ask card {index} ({_first_sentence(error)})."))
            cards.append(Card(kind=kind, name=f"card {index}"))
    return cards, problems


def _of_properties(told: Any, kind: CardKind) -> Card:
    is_nvidia = kind is CardKind.CUDA
    return Card(
        kind=kind,
        name=one_line(str(told.name)),
        uuid=_nvidia_uuid(told) if is_nvidia else _amd_identity(told),
        total_bytes=int(told.total_memory),
        capability=(told.major, told.minor) if is_nvidia else (0, 0),
        unified=bool(getattr(told, "is_integrated", False)),
    )


def _of_xpu(told: Any) -> Card:
    return Card(
        kind=CardKind.XPU,
        name=one_line(str(told.name)),
        uuid=str(getattr(told, "uuid", "")),
        total_bytes=int(told.total_memory),
        unified=bool(getattr(told, "is_integrated_gpu", False)),
    )


def _nvidia_uuid(told: Any) -> str:
    uuid = str(getattr(told, "uuid", ""))
    return uuid if not uuid or uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def _amd_identity(told: Any) -> str:
    """The kernel's `unique_id`, which ROCm stores as text in the bytes of the UUID; otherwise the card's slot."""
    try:
        text = bytes.fromhex(identity(str(getattr(told, "uuid", "")))).decode("ascii").strip("\0")
    except (ValueError, UnicodeDecodeError):
        text = ""
    if _UNIQUE_ID.fullmatch(text):
        return text
    if hasattr(told, "pci_bus_id"):
        domain, bus, device = (getattr(told, f"pci_{part}_id", 0) for part in ("domain", "bus", "device"))
        return f"{domain:04x}:{bus:02x}:{device:02x}.0"
    return ""


def _refusal(error: Exception) -> Problem:
    return Problem(sentence=f"torch can open no card: {_first_sentence(error)}.")


def _first_sentence(error: Exception) -> str:
    """Return the first sentence of an error, without its full stop."""
    return first_line(error).split(". ")[0].rstrip(". ")
