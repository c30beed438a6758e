"""Records of a real card that follow the schema and mean something that cannot be: each with its rule and field."""

from collections.abc import Callable
from typing import Any

from acestep.units import GIB, MIB
from tests.damage import FIT, FITS, Damage, Document, edit, put

THINKING = "think"


def on_card(name: str, capability: str, gib: float, *, driver: str = "580.65", torch: str = "2.13.0+cu130") -> Any:
    """The good record as one of a real card whose failures were repeated often enough."""

    def change(document: Document) -> None:
        document["card"] |= {"kind": "cuda", "name": name, "compute_capability": capability}
        document["card"] |= {"total_bytes": int(gib * GIB), "driver": driver}
        document["environment"]["torch"] = torch
        document["cap_method"] = "fraction"
        for probe in document["probes"]:
            if probe["verdict"] == "oom":
                probe["asked"] = 9

    return change


REAL = on_card("NVIDIA GeForce RTX 3060", "8.6", 11.63)


CARDS = (
    ("NVIDIA GeForce RTX 3060", "8.6", 11.63),
    ("NVIDIA GeForce RTX 4090 Laptop GPU", "8.9", 15.6),
    ("NVIDIA GeForce RTX 4090", "8.9", 23.53),
    ("NVIDIA GeForce RTX 5090", "12.0", 31.36),
    ("NVIDIA A10G", "8.6", 22.05),
    ("NVIDIA L4", "8.9", 22.05),
    ("NVIDIA A100-SXM4-80GB", "8.0", 79.25),
    ("NVIDIA A100-SXM4-40GB MIG 2g.10gb", "8.0", 9.75),
    ("NVIDIA H100 80GB HBM3", "9.0", 79.18),
    ("NVIDIA RTX 6000 Ada Generation", "8.9", 47.5),
    ("NVIDIA RTX 5000 Ada Generation", "8.9", 31.5),
    ("NVIDIA RTX 5000 Ada Generation Laptop GPU", "8.9", 15.6),
    ("NVIDIA RTX 2000 Ada Generation", "8.9", 15.6),
    ("NVIDIA RTX PRO 5000 Blackwell", "12.0", 47.4),
    ("NVIDIA RTX A4000", "8.6", 15.7),
    ("NVIDIA unheard of", "8.6", 11.9),
)
"""Names, compute capabilities and sizes as real cards report them to CUDA."""


def _both(*changes: Callable[[Document], object]) -> Callable[[Document], object]:
    return lambda document: [change(document) for change in changes]


def _no_think_stage(document: Document) -> None:
    probe = next(p for p in document["probes"] if p["verdict"] == "fits" and p["workload"]["with_lm"])
    probe["stages"] = [stage for stage in probe["stages"] if stage["name"] != THINKING]


def _asked_once(document: Document) -> None:
    for probe in document["probes"]:
        probe.pop("asked", None)


def certified(name: str, value: Any) -> Callable[[Document], object]:
    """Another value in the workload of every probe, so that all certificates still hold together."""

    def change(document: Document) -> None:
        for probe in document["probes"]:
            probe["workload"][name] = value

    return change


def _conditions(foreign_gib: int) -> Document:
    known = {"watched": True, "context_bytes": 0, "allocator": "native", "returned_s": 0.0}
    return known | {"foreign_bytes": foreign_gib * GIB}


SERIAL = "sha256:" + "5" * 64
WORK = {"flops": 1, "memory_bytes": 1, "launches": 1, "transferred_bytes": 1}

MEANINGS: tuple[Damage, ...] = (
    edit("a limit with short lyrics", "V120", f"certificates[{FITS}].fits", certified("lyric_tokens", 1)),
    edit("a limit with a short caption", "V120", f"certificates[{FITS}].fits", certified("text_tokens", 8)),
    edit("a limit of one step", "V120", f"certificates[{FITS}].fits", certified("steps", 1)),
    edit("a limit of covers", "V120", f"certificates[{FITS}].fits", certified("task", "cover")),
    edit("a limit beside a reference", "V120", f"certificates[{FITS}].fits", certified("reference_seconds", 30.0)),
    edit("a fit with a model that never thought", "V121", ".stages", _no_think_stage),
    edit("failures seen once on a real card", "V122", ".fails", _both(REAL, _asked_once)),
    edit("a 3060 of another generation", "V123", "compute_capability", on_card("NVIDIA RTX 3060", "9.0", 11.63)),
    edit("an H100 that is an Ampere", "V123", "compute_capability", on_card("NVIDIA H100 80GB HBM3", "8.0", 79.2)),
    edit("a 5000 Ada that is a Blackwell", "V123", "compute_capability", on_card("RTX 5000 Ada", "12.0", 31.5)),
    edit("a 5090 that is an Ada", "V123", "compute_capability", on_card("RTX 5090", "8.9", 31.36)),
    edit("a 2050 that is an Ada", "V123", "compute_capability", on_card("RTX 2050", "8.9", 3.7)),
    edit("a card run by PyTorch's CPU build", "V123", "torch", on_card("RTX 3060", "8.6", 11.6, torch="2.13.0+cpu")),
    edit("a card run by PyTorch's ROCm build", "V123", "torch", on_card("RTX 3060", "8.6", 11.6, torch="2.9+rocm6.4")),
    edit("a 5090 with a driver before it", "V123", "driver", on_card("RTX 5090", "12.0", 31.36, driver="535.1")),
    edit("a driver that is a word", "V123", "driver", on_card("RTX 3060", "8.6", 11.63, driver="newest")),
    edit("a simulated card with a name", "V123", "card.name", put("card.name", "RTX 3060")),
    edit("a 3060 of 24 GB", "V124", "card.total_bytes", on_card("NVIDIA GeForce RTX 3060", "8.6", 23.5)),
    edit("a 4090 of 40 GB", "V124", "card.total_bytes", on_card("NVIDIA GeForce RTX 4090", "8.9", 39.4)),
    edit(
        "more withheld than the card has",
        "V126",
        f"probes[{FIT}].withheld_bytes",
        _both(
            on_card("RTX 3060", "8.6", 8.0),
            put(f"probes.{FIT}.withheld_bytes", 300 * MIB),
            put(f"probes.{FIT}.cap_bytes", int(7.9 * GIB)),
        ),
    ),
    edit(
        "a slice that is a whole card", "V124", "card.total_bytes", on_card("H100 80GB HBM3 MIG 1g.10gb", "9.0", 79.2)
    ),
    edit("a 5090 run by a build without it", "V123", "torch", on_card("RTX 5090", "12.0", 31.36, torch="2.6.0+cu118")),
    edit("a build that is a word", "V123", "torch", on_card("RTX 3060", "8.6", 11.6, torch="newest")),
    edit("a simulated card with a name of its own", "V123", "card.name", put("card.name", "NVIDIA unheard of")),
    edit("more of others than the card has", "V130", "conditions", _both(REAL, put("conditions", _conditions(60)))),
    edit("others on a simulated card", "V130", "conditions", put("conditions", _conditions(1))),
    edit(
        "a card that returned after years",
        "V130",
        "returned_s",
        _both(REAL, put("conditions", _conditions(0) | {"returned_s": 1e9})),
    ),
    edit("a stage of years", "V130", ".seconds", _both(REAL, put(f"probes.{FIT}.stages.0.seconds", 1e9))),
    edit("a stage of no songs", "V127", "songs_per_pass", put(f"probes.{FIT}.stages.0.songs_per_pass", 0)),
    edit("a stage of too many songs", "V127", "songs_per_pass", put(f"probes.{FIT}.stages.0.songs_per_pass", 99)),
    edit("a simulated card asked twice", "V127", ".asked", put(f"probes.{FIT}.asked", 2)),
    edit("a song of a million steps", "V127", "steps", put(f"probes.{FIT}.workload.steps", 10**6)),
    edit("a real card that counts work", "V129", ".work", _both(REAL, put(f"probes.{FIT}.stages.0.work", WORK))),
    edit("a simulated card with a serial", "V128", "card.serials", put("card.serials", [SERIAL])),
    edit("a card that is two", "V128", "card.serials", _both(REAL, put("card.serials", [SERIAL, SERIAL]))),
)
