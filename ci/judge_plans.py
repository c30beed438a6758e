"""Checks that `acestep plan` offers every card as much as at the base: between the table and a song stands code.

Both versions of the code plan with the table of the base, as commands of their own.
"""

import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from acestep.knobs import KNOBS, Backend, Offload, Quantization, Variant
from acestep.tiers import lm_rank
from calibrate.files import as_text
from ci.findings import Finding, FindingValue
from ci.head_channel import head_environment
from ci.head_process import head_code
from ci.side_by_side import LOCAL_PLACES

PLANNED = {Variant.TURBO, Variant.XL_TURBO}
"""One variant of each size: the others are planned by the same code."""

SIZES_GIB = (3, 4, 5, 7, 8, 12, 16, 20, 24)
"""A card of each tier, and one below the smallest."""

PLAN_SECONDS = 60
"""Longest time for one plan, which takes a fraction of a second."""

STAGE = "plan"
"""Stands for the stage in a finding."""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared of the document of `acestep plan --json`."""

    tier: str
    max_duration_s: dict[str, int]
    max_batch: dict[str, int]
    frontier: dict[str, dict[str, int]]
    reach: dict[str, int]
    lm_songs_per_pass: dict[str, int]
    backends_allowed: tuple[Backend, ...]
    init_lm: bool
    lm_models: tuple[str, ...]
    offload: Offload
    quantization: Quantization | None
    lm: str | None
    lm_quantization: Quantization | None


PlanLoss = tuple[str, FindingValue, FindingValue]
"""A field of a plan, and its values before and after."""


def plan_findings(checkout: Path, before: Path, variants: Collection[Variant]) -> list[Finding]:
    """Return what the code of a checkout plans for less than the code in the folder `before`, that of the base."""
    asked = [(variant, size) for variant, size in product(sorted(variants), SIZES_GIB)]
    with ExitStack() as stack:
        after, _ = stack.enter_context(head_code(checkout))
        own_table = Path(stack.enter_context(TemporaryDirectory())) / "tiers"
        if (after / "tiers").exists():
            shutil.move(after / "tiers", own_table)
        shutil.copytree(before / "tiers", after / "tiers")
        pool = stack.enter_context(ThreadPoolExecutor(LOCAL_PLACES.most))
        then = list(pool.map(lambda one: _plan(before, *one), asked))
        now = list(pool.map(lambda one: _plan(after, *one), asked))
        table = "the same table"
        if any(isinstance(plan, str) for plan in now) and own_table.exists():
            # A change of the table's form: its code may not read the base's table.
            table = "its own table"
            shutil.rmtree(after / "tiers")
            shutil.move(own_table, after / "tiers")
            now = list(pool.map(lambda one: _plan(after, *one), asked))
    return [
        finding
        for question, *plans in zip(asked, then, now, strict=True)
        for finding in _judged(*question, *plans, table=table)
    ]


def losses(before: Planned, after: Planned) -> Iterator[PlanLoss]:
    """Yield each number of a plan that is smaller, each language model that is gone, each knob that saves more."""
    now = _limits(after)
    for name, number in _limits(before).items():
        if now.get(name, 0) < number:
            yield name, number, now.get(name, 0)
    if not set(before.lm_models) <= set(after.lm_models):
        yield "lm_models", ", ".join(before.lm_models), ", ".join(after.lm_models) or None
    if lm_rank(after.lm) < lm_rank(before.lm):
        yield "lm", before.lm, after.lm
    if not set(before.backends_allowed) <= set(after.backends_allowed):
        yield "backends_allowed", ", ".join(before.backends_allowed), ", ".join(after.backends_allowed)
    if before.init_lm and not after.init_lm:
        yield "init_lm", True, False
    for name in ("offload", "quantization", "lm_quantization"):
        # A larger language model may need a smaller format of its weights.
        if name != "lm_quantization" or before.lm == after.lm:
            old, new = getattr(before, name), getattr(after, name)
            if KNOBS[name].rank(new) > KNOBS[name].rank(old):
                yield name, old, new


def _limits(plan: Planned) -> dict[str, int]:
    named = {f"frontier.{state}": reach for state, reach in plan.frontier.items()}
    named |= {"max_duration_s": plan.max_duration_s, "max_batch": plan.max_batch, "reach": plan.reach}
    named |= {"lm_songs_per_pass": plan.lm_songs_per_pass}
    return {f"{name}.{key}": number for name, numbers in named.items() for key, number in numbers.items()}


def _plan(code: Path, variant: Variant, size_gib: float) -> Planned | str:
    """Return the plan of a card by the code in a folder, or why there is none."""
    command = [sys.executable, "-P", "-m", "acestep", "plan", "--vram", f"{size_gib:g}", "--variant", variant, "--json"]
    try:
        done = subprocess.run(  # noqa: S603 our own interpreter
            command, env=head_environment(code), cwd=code, capture_output=True, check=False, timeout=PLAN_SECONDS
        )
        return msgspec.json.decode(done.stdout, type=Planned)
    except subprocess.TimeoutExpired:
        return f"took over {PLAN_SECONDS} s"
    except msgspec.DecodeError as error:
        return f"is none: {error}"


def _judged(
    variant: Variant, size_gib: float, before: Planned | str, after: Planned | str, *, table: str
) -> Iterator[Finding]:
    card = f"{variant}: the plan for a card of {size_gib:g} GiB"
    if isinstance(before, str) or isinstance(after, str):
        whose, problem = ("base", before) if isinstance(before, str) else ("change", after)
        message = f"{card} with the code of the {whose} {problem}."
        yield Finding(id="G203", variant=variant, field=STAGE, message=message)
        return
    for field, old, new in losses(before, after):
        yield Finding(
            id="G512",
            variant=variant,
            tier=before.tier,
            field=f"{STAGE}.{size_gib:g}.{field}",
            before=old,
            after=new,
            stage=STAGE,
            component=field.partition(".")[0],
            message=f"{card} from {table} has {field} {as_text(new)}; at the base it has {as_text(old)}.",
        )
