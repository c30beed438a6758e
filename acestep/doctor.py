"""What is on this machine, and what it means for making music; nothing is imported to find out."""

import os
import platform
import sys
from pathlib import Path

import msgspec

from acestep.capabilities import groups_attention
from acestep.hardware import Card, CardKind, cap_bytes, detect, planning_card
from acestep.machine import installed, plan_here
from acestep.models.catalog import CHECKPOINTS, checkpoints_dir
from acestep.models.intact import flaws, remedy
from acestep.models.kernel_choice import Choice, choose
from acestep.plan import Plan
from acestep.show import card_line, columns
from acestep.tiers import TierTable, data_file, load_tiers
from acestep.units import gib

PACKAGES = ("torch", "diffusers", "transformers", "torchao", "vllm", "flash-attn", "mlx-lm", "nvidia-ml-py")
"""The packages a run depends on or profits from."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What `acestep doctor --json` prints. Absent packages are null; `cap_bytes` is null where nothing is capped."""

    card: Card
    nameplate_gib: float
    planned_card: Card
    cap_bytes: int | None
    tier: str
    python: str
    packages: dict[str, str | None]
    attention: str
    compile: str
    table_file: str
    table_version: int
    variants: tuple[str, ...]
    checkpoints_dir: str
    checkpoints: tuple[str, ...]
    damaged: tuple[str, ...]
    advice: tuple[str, ...]


def examine() -> Findings:
    """Look at this machine; raises as loading the tier table and reading the environment do."""
    card = detect(os.environ)
    planned = planning_card(os.environ, card)
    plan = plan_here(card=planned)
    table = load_tiers()
    packages = _versions()
    folder = checkpoints_dir()
    found = tuple(checkpoint.id for checkpoint in CHECKPOINTS if (folder / checkpoint.id).is_dir())
    return Findings(
        card=card,
        nameplate_gib=card.nameplate_gib,
        planned_card=planned,
        cap_bytes=cap_bytes(os.environ, card),
        tier=plan.tier,
        python=platform.python_version(),
        packages=packages,
        attention=_attention(card, plan),
        compile=_compile(plan),
        table_file=str(data_file("generated_tiers.json")),
        table_version=table.table_version,
        variants=_variants(table),
        checkpoints_dir=str(folder.absolute()),
        checkpoints=found,
        damaged=_damaged(folder, found),
        advice=(*_advice(card, packages, found), *plan.warnings),
    )


def page(findings: Findings) -> str:
    """The findings for a person."""
    versions = ", ".join(f"{name} {number}" for name, number in findings.packages.items() if number)
    missing = ", ".join(name for name, number in findings.packages.items() if not number)
    rows = [("card", card_line(findings.card)), ("driver", findings.card.driver or "none")]
    if findings.planned_card != findings.card:
        cap = "nothing is capped" if findings.cap_bytes is None else f"capped at {gib(findings.cap_bytes)}"
        rows.append(("planned for", f"{card_line(findings.planned_card)}; {cap}"))
    rows += [
        ("tier", findings.tier),
        ("attention", findings.attention),
        ("compile", findings.compile),
        ("python", findings.python),
        ("installed", versions),
        ("not installed", missing or "nothing is missing"),
        (
            "tier table",
            f"{findings.table_file}, version {findings.table_version}, models {', '.join(findings.variants)}",
        ),
        ("checkpoints", f"{', '.join(findings.checkpoints) or 'none'} in {findings.checkpoints_dir}"),
    ]
    damaged = (f"damaged: {sentence}" for sentence in findings.damaged)
    return "\n".join((columns(rows), *damaged, *(f"advice: {sentence}" for sentence in findings.advice)))


def _damaged(folder: Path, checkpoints: tuple[str, ...]) -> tuple[str, ...]:
    """A sentence for every file of weights that is missing, empty or cut short, with what to type."""
    places = [folder / name for name in checkpoints]
    return tuple(f"{flaw}; {remedy(place)}" for place in places for flaw in flaws(place))


def _versions() -> dict[str, str | None]:
    """The installed version of each package, from its folder name: reading the metadata takes 70 ms."""
    found: dict[str, str] = {}
    for folder in sys.path:
        for entry in Path(folder).glob("*.dist-info"):
            name, _, number = entry.stem.partition("-")
            found.setdefault(name.replace("_", "-").lower(), number)
    return {name: found.get(name) for name in PACKAGES}


def _attention(card: Card, plan: Plan) -> str:
    """Which kernel each kind of attention layer takes, and why."""
    chosen = choose(
        "cuda" if card.kind is CardKind.ROCM else card.kind.value,
        plan.attention,
        grouped=groups_attention(card),
        flash_attn=installed("flash_attn"),
    )
    layers: dict[Choice, list[str]] = {}
    for kind, choice in chosen.items():
        layers.setdefault(choice, []).append(kind)
    return "; ".join(f"{' and '.join(kinds)} layers: {c.kernel} ({c.why})" for c, kinds in layers.items())


def _compile(plan: Plan) -> str:
    return f"{'on' if plan.compile else 'off'} by default on this card; simulated numbers are without it"


def _variants(table: TierTable) -> tuple[str, ...]:
    return tuple(variant.value for variant in table.variants)


def _advice(card: Card, packages: dict[str, str | None], checkpoints: tuple[str, ...]) -> list[str]:
    advice = []
    torch = packages["torch"]
    if torch is None:
        advice.append("torch is not installed: pip install torch.")
    elif torch.endswith("+cpu") and card.kind in (CardKind.CUDA, CardKind.ROCM, CardKind.XPU):
        advice.append(f"torch {torch} is built for the CPU and will not use {card.name}: install the build for it.")
    if not checkpoints:
        advice.append("No weights were found: acestep download turbo fetches them, --model tiny plays without.")
    return advice
