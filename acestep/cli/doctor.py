"""The state of this machine, and what it means for making music; no package is imported to find out."""

import os
import platform
import sys
from pathlib import Path

import msgspec

from acestep.checkpoints.catalog import CHECKPOINTS, checkpoints_dir
from acestep.checkpoints.intact import flaws, remedy
from acestep.cli.show import UNKNOWN_DTYPE, aligned
from acestep.dit.kernel_choice import KernelChoice, choose_kernels
from acestep.errors import NotEnoughMemoryError, UsageError
from acestep.hardware.card import CPU, Card, CardKind, cap_bytes, card_line, planning_card
from acestep.hardware.cores import usable_cores
from acestep.hardware.detection import DEVICE_VARIABLE, LM_DEVICE_VARIABLE, Detection, look
from acestep.hardware.detection.advice import about_cards
from acestep.hardware.detection.answers import Answer, named
from acestep.hardware.detection.torch_build import TorchBuild, installed_build
from acestep.hardware.processor import multiplies_bfloat16
from acestep.hardware.speed import MeasuredSpeed
from acestep.limits.capabilities import dtype_name, groups_attention
from acestep.limits.machine import installed, plan_of_card
from acestep.limits.plan import AS_THE_TIER_SAYS, Plan
from acestep.tiers import TierTable, data_file, load_tiers
from acestep.units import gib

PACKAGES = ("torch", "diffusers", "transformers", "torchao", "vllm", "flash-attn", "mlx-lm", "nvidia-ml-py")
"""The packages that a run needs or can use."""


class DoctorReport(msgspec.Struct, frozen=True, kw_only=True):
    """The document of `acestep doctor --json`. Missing packages are null; `cap_bytes` is null without a cap.

    `asked` holds every source's answer about cards, `cards` those that could be used in the order of `--device`,
    `size_by` the rule that found the size on the box, and `sizes` where sources disagree about a card's memory.
    `threads` is how many the CPU computes with unless OMP_NUM_THREADS says otherwise, and `cpu_dtype` the type in which
    it computes, null if it is not known.
    `speed` is what `--measure` found, else null.
    `no_such_device` is why the card that was asked for cannot be used, "" if it can; `card` is then the usual.
    """

    card: Card
    nameplate_gib: float
    size_by: str
    no_such_device: str
    cards: tuple[Card, ...]
    asked: tuple[Answer, ...]
    sizes: tuple[str, ...]
    torch_build: TorchBuild | None
    planned_card: Card
    cap_bytes: int | None
    tier: str
    threads: int
    cpu_dtype: str | None
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
    speed: MeasuredSpeed | None = None


def examine(*, ask_torch: bool = False) -> DoctorReport:
    """Examine this machine; raises as loading the tier table and reading the environment do.

    With `ask_torch` a child process imports torch and returns the cards that it lists.
    """
    found_here, no_such_device = _look(ask_torch=ask_torch)
    build = installed_build()
    card = found_here.card
    planned = planning_card(os.environ, card)
    plan = plan_of_card(AS_THE_TIER_SAYS, planned)
    table = load_tiers()
    packages = _versions()
    folder = checkpoints_dir()
    found = tuple(checkpoint.id for checkpoint in CHECKPOINTS if (folder / checkpoint.id).is_dir())
    return DoctorReport(
        card=card,
        nameplate_gib=card.nameplate_gib,
        size_by=card.box.rule,
        no_such_device=no_such_device,
        cards=found_here.cards,
        asked=found_here.answers,
        sizes=found_here.sizes,
        torch_build=build,
        planned_card=planned,
        cap_bytes=cap_bytes(os.environ, card),
        tier=plan.tier,
        threads=usable_cores(),
        cpu_dtype=dtype_name(CPU, plan.variant, cpu_bfloat16=multiplies_bfloat16()),
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
        advice=tuple(dict.fromkeys((*about_cards(found_here, build), *_advice(packages, found), *plan.warnings))),
    )


def _look(*, ask_torch: bool) -> tuple[Detection, str]:
    """Return the cards here, and why one that was asked for is none of them, "" if it is one."""
    try:
        return look(os.environ, ask_child=ask_torch), ""
    except UsageError as error:
        wishes = (DEVICE_VARIABLE, LM_DEVICE_VARIABLE)
        without = {name: value for name, value in os.environ.items() if name not in wishes}
        return look(without, ask_child=ask_torch), str(error)


def doctor_page(findings: DoctorReport) -> str:
    """Return the findings as text."""
    versions = ", ".join(f"{name} {number}" for name, number in findings.packages.items() if number)
    missing = ", ".join(name for name, number in findings.packages.items() if not number)
    rows = [(f"asked {answer.source}", answer.heard) for answer in findings.asked]
    if findings.torch_build is not None:
        rows.append(
            ("torch's files", f"torch {findings.torch_build.version}, built for {findings.torch_build.built_for}")
        )
    rows += [("", sentence) for sentence in findings.sizes]
    rows += [(f"card {index}", named(card)) for index, card in enumerate(findings.cards) if len(findings.cards) > 1]
    rows += [("card", card_line(findings.card)), ("driver", findings.card.driver or "none")]
    if findings.card.kind is not CardKind.CPU:
        rows.append(("size by", findings.size_by))
    if findings.planned_card != findings.card:
        cap = "nothing is capped" if findings.cap_bytes is None else f"capped at {gib(findings.cap_bytes)}"
        rows.append(("planned for", f"{card_line(findings.planned_card)}; {cap}"))
    rows += [
        ("tier", findings.tier),
        ("attention", findings.attention),
        ("compile", findings.compile),
        ("threads", f"{findings.threads} where the CPU computes; OMP_NUM_THREADS sets another number"),
        ("processor", f"computes in {findings.cpu_dtype or UNKNOWN_DTYPE}"),
        ("python", findings.python),
        ("installed", versions),
        ("not installed", missing or "nothing is missing"),
        (
            "tier table",
            f"{findings.table_file}, version {findings.table_version}, models {', '.join(findings.variants)}",
        ),
        ("checkpoints", f"{', '.join(findings.checkpoints) or 'none'} in {findings.checkpoints_dir}"),
    ]
    if findings.speed is not None:
        rows += _speed_rows(findings.speed)
    damaged = (f"damaged: {sentence}" for sentence in findings.damaged)
    return "\n".join((*aligned(rows), *damaged, *(f"advice: {sentence}" for sentence in findings.advice)))


def measured(findings: DoctorReport) -> DoctorReport:
    """Return the findings with the measured speed of the device that songs are computed on; imports torch.

    Raises `NotEnoughMemoryError` where the device has too little free memory for it.
    """
    from acestep.devices.measure_speed import measure_speed
    from acestep.devices.open import open_here
    from acestep.devices.out_of_memory import ran_out

    try:
        return msgspec.structs.replace(findings, speed=measure_speed(*open_here()))
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or ran_out(error)):
            raise
    raise NotEnoughMemoryError("Measuring takes 1.5 GiB of the device; close other programs that use it.")


def _speed_rows(speed: MeasuredSpeed) -> list[tuple[str, str]]:
    none = "none: the device shares the processor's memory, or page-locked memory cannot be had"
    bus = none if speed.bus_gbs is None else f"{speed.bus_gbs:.1f} GB/s"
    return [
        ("measured", f"{speed.name} ({speed.kind}), in {speed.seconds:.0f} s"),
        ("  products", f"{speed.products_tflops:.3g} * 10^12 operations/s in {speed.dtype}"),
        ("  copies", f"{speed.copy_gbs:.3g} GB/s read and written"),
        ("  transfers", f"{bus}" + ("" if speed.bus_gbs is None else " from page-locked memory")),
        ("  launches", f"{speed.launch_us:.1f} us from one kernel to the next"),
    ]


def _damaged(folder: Path, checkpoints: tuple[str, ...]) -> tuple[str, ...]:
    """Return a sentence for every file of weights that is missing, empty or cut short, with the command to run."""
    places = [folder / name for name in checkpoints]
    return tuple(f"{flaw}; {remedy(place)}" for place in places for flaw in flaws(place))


def _versions() -> dict[str, str | None]:
    """Return the installed version of each package, from its folder name: reading the metadata takes 70 ms."""
    found: dict[str, str] = {}
    for folder in sys.path:
        for entry in Path(folder).glob("*.dist-info"):
            name, _, number = entry.stem.partition("-")
            found.setdefault(name.replace("_", "-").lower(), number)
    return {name: found.get(name) for name in PACKAGES}


def _attention(card: Card, plan: Plan) -> str:
    """Return the kernel of each kind of attention layer, and the reason."""
    chosen = choose_kernels(
        "cuda" if card.kind is CardKind.ROCM else card.kind.value,
        plan.attention,
        grouped=groups_attention(card),
        flash_attn=installed("flash_attn"),
    )
    layers: dict[KernelChoice, list[str]] = {}
    for kind, choice in chosen.items():
        layers.setdefault(choice, []).append(kind)
    return "; ".join(f"{' and '.join(kinds)} layers: {c.kernel} ({c.why})" for c, kinds in layers.items())


def _compile(plan: Plan) -> str:
    return f"{'on' if plan.compile else 'off'} by default on this card; simulated numbers are without it"


def _variants(table: TierTable) -> tuple[str, ...]:
    return tuple(variant.value for variant in table.variants)


def _advice(packages: dict[str, str | None], checkpoints: tuple[str, ...]) -> list[str]:
    advice = []
    if packages["torch"] is None:
        advice.append("torch is not installed: pip install torch.")
    if not checkpoints:
        advice.append("No weights were found: acestep download turbo fetches them, --model tiny needs none.")
    return advice
