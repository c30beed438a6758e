"""Runs that no cell of the table is: with audio that is given, a weak cover, other weight formats.

No record has them, so the code of the base is simulated first, and what it takes is what a change may take.
"""

from collections.abc import Collection, Iterator
from random import Random

import msgspec

from acestep.knobs import Knobs, Offload, Quantization, Variant
from acestep.request import MAX_BATCH, MAX_LYRIC_TOKENS
from acestep.task import BASE_TASKS, Task
from calibrate.probes.base import Simulation
from calibrate.record.measurement import RecordedProbe
from calibrate.workload import Workload
from ci.cells import GateCell
from ci.counting import TellCells
from ci.findings import Finding
from ci.judge_code import CODE_ERRORS, PLENTY_BYTES
from ci.side_by_side import SimulationTask

AT_BASE = ("acestep", "tiers", "pyproject.toml")
"""What the code of a base needs to run."""

ANY_TIER = "any"
"""Stands for the tier of a run that is not about one."""

SOURCE_S = 240.0
"""Length of the audio that is given: a long song."""

PLAIN_S = 60.0

_DRAWN_SONG_SECONDS = 600
"""All songs of a run that is drawn together: what it costs to simulate does not depend on the seed."""

_DRAWN_S, _DRAWN_LYRICS, _DRAWN_STEPS = (20, 599), (200, MAX_LYRIC_TOKENS), (3, 8)
"""The smallest and the largest of what is drawn."""


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """One run, by a name for its state."""

    name: str
    knobs: Knobs
    workload: Workload

    @property
    def state(self) -> str:
        """The state of its cell: with or without a language model, and the name."""
        return f"{'with_lm' if self.workload.with_lm else 'without_lm'}.{self.name}"


def _doors() -> Iterator[Door]:
    song, plain = Workload(batch=2, duration_s=SOURCE_S), Workload(batch=2, duration_s=PLAIN_S)
    cover = msgspec.structs.replace(song, task=Task.COVER)
    # Where little stays on the card, a few MiB more are seen.
    turbo, base = (Knobs(variant=variant, offload=Offload.CPU_DIT) for variant in (Variant.TURBO, Variant.BASE))
    for name, workload in {
        "cover": cover,
        "weak_cover": msgspec.structs.replace(cover, cover_strength=0.5),
        "repaint": msgspec.structs.replace(song, task=Task.REPAINT),
        "reference": msgspec.structs.replace(song, reference_seconds=SOURCE_S),
    }.items():
        yield Door(name=name, knobs=turbo, workload=workload)
    for task in sorted(BASE_TASKS):
        yield Door(name=task, knobs=base, workload=msgspec.structs.replace(song, task=task))
    for quantization in Quantization:
        for offload in (Offload.NONE, Offload.STREAM):
            knobs = Knobs(variant=Variant.TURBO, quantization=quantization, offload=offload)
            yield Door(name=f"{quantization}.{offload}", knobs=knobs, workload=plain)
        thinking = msgspec.structs.replace(turbo, lm="0.6B", lm_quantization=quantization)
        yield Door(name=f"lm_{quantization}", knobs=thinking, workload=msgspec.structs.replace(plain, with_lm=True))


DOORS = tuple(_doors())


def drawn_doors(seed: int) -> tuple[Door, ...]:
    """Return runs that a seed draws: memory that only some lengths or batches take has no place where it is safe."""
    rng = Random(seed)  # noqa: S311 it draws a sample, not a secret
    return tuple(_drawn(rng, lm) for lm in (None, "0.6B"))


def _drawn(rng: Random, lm: str | None) -> Door:
    shortest, longest = _DRAWN_S
    batch = rng.randint(1, 4 if lm else min(MAX_BATCH, _DRAWN_SONG_SECONDS // shortest))
    return Door(
        name=f"drawn_{'planned' if lm else 'song'}",
        knobs=Knobs(variant=Variant.TURBO, offload=Offload.CPU_DIT, lm=lm),
        workload=Workload(
            batch=batch,
            duration_s=float(rng.randint(shortest, min(longest, _DRAWN_SONG_SECONDS // batch))),
            with_lm=lm is not None,
            lyric_tokens=rng.randint(*_DRAWN_LYRICS),
            steps=rng.randint(*_DRAWN_STEPS),
        ),
    )


def door_tasks(
    doors: Collection[Door],
    variants: Collection[Variant],
    share: float,
    progress: TellCells,
    found: dict[str, GateCell],
) -> list[SimulationTask]:
    """Return a task for each of some runs with the code of the base, of these variants, that puts a cell into `found`.

    A cell's stages are those of a card with plenty of memory; it is proven at a cap of `share` more than it needs.
    """

    def asked(door: Door, simulation: Simulation) -> list[Finding]:
        progress(f"Probing {door.knobs.variant} {door.name} at the base.")
        try:
            result = simulation.probe(door.knobs, door.workload, PLENTY_BYTES)
            needed = simulation.smallest_caps(door.knobs, door.workload)["total"]
        except CODE_ERRORS as error:
            message = f"{door.knobs.variant} {door.name} cannot be probed at the base: {error}"[:300]
            return [Finding(id="G203", variant=door.knobs.variant, tier=ANY_TIER, field=door.state, message=message)]
        found[door.name] = GateCell(
            variant=door.knobs.variant,
            tier=ANY_TIER,
            state=door.state,
            probe=RecordedProbe.of(door.knobs, door.workload, result, timed=False),
            proven_cap_bytes=int(needed * (1 + share)),
        )
        return []

    return [
        lambda simulation, door=door: asked(door, simulation)  # type: ignore[misc]
        for door in doors
        if door.knobs.variant in variants
    ]
