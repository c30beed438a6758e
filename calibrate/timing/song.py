"""The work of a whole song, from probes that compute a few steps of it, and how long a card takes for it."""

from typing import Final, Protocol

import msgspec

from acestep.dit.sampler import steps_for
from acestep.evidence import EvidenceKind
from acestep.knobs import Backend, Knobs, Offload
from acestep.stage import Stage
from calibrate.probes.base import ProbeResult
from calibrate.probes.work import Work
from calibrate.timing.cards import CardSpeed
from calibrate.timing.roofline import LM_LAUNCHES, VLLM_MEMORY_SHARE, VLLM_STEP_S, Seconds, work_seconds
from calibrate.workload import PROBE_STEPS, Workload

STREAMED: Final = {
    Offload.STREAM: frozenset[str]({Stage.DENOISE}),
    Offload.STREAM_ENCODERS: frozenset[str]({Stage.ENCODE, Stage.DENOISE}),
}
"""The stages whose weights come block by block (`acestep.memory.placement`), without those of recordings: their largest
part, the VAE, comes in one piece.
"""


class WholeSong(Protocol):
    """What knows the work of a song: the simulated card."""

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        """Run a few steps under a cap."""
        ...

    def writing(self, knobs: Knobs, workload: Workload, at_once: int) -> tuple[Work, int]:
        """Return the work of writing the plan and all codes, `at_once` songs in a pass, and the number of steps."""
        ...


class SongTime(msgspec.Struct, frozen=True, kw_only=True):
    """How long a song takes on a card, in whole and by stages; `steps` are those of denoising.

    The `evidence` is that of the seconds: the work is simulated, the speeds are published or measured.
    """

    card: str
    steps: int
    total: Seconds
    stages: dict[str, Seconds]
    evidence: EvidenceKind = EvidenceKind.ESTIMATED


class SongWork(msgspec.Struct, frozen=True, kw_only=True):
    """The work of songs with all steps of their variant, by stage.

    Of thinking it has only what a probe does, which writes a few tokens; `thought_at_once` songs are planned in a pass.
    Stages of `streamed` compute with one block of weights while the next one crosses the bus.
    """

    stages: dict[str, Work]
    streamed: frozenset[str]
    thought_at_once: int

    @property
    def bus_bytes(self) -> int:
        """The bytes between host and card."""
        return sum(work.transferred_bytes for work in self.stages.values())

    def seconds_on(self, card: CardSpeed) -> dict[str, float]:
        """Return the likely seconds of each stage but thinking."""
        return {
            name: work_seconds(work, card, overlaps=name in self.streamed)
            for name, work in self.stages.items()
            if name != Stage.THINK
        }


def song_work(knobs: Knobs, workload: Workload, cap_bytes: int, by: WholeSong) -> SongWork | None:
    """Return the work of a workload with all steps of its variant; None where it does not fit."""
    probes = [
        by.probe(knobs, msgspec.structs.replace(workload, steps=count), cap_bytes)
        for count in (PROBE_STEPS, PROBE_STEPS + 1)
    ]
    few, more = (probe.work for probe in probes)
    if Stage.DECODE not in few or Stage.DECODE not in more:
        return None
    step = more[Stage.DENOISE].plus(few[Stage.DENOISE], -1)
    rest = steps_for(knobs.variant, 0) - PROBE_STEPS
    return SongWork(
        stages=few | {Stage.DENOISE: few[Stage.DENOISE].plus(step, rest)},
        streamed=STREAMED.get(knobs.offload, frozenset()),
        thought_at_once=next((s.songs_per_pass for s in probes[0].stages if s.name == Stage.THINK), 1),
    )


def song_time(card: CardSpeed, knobs: Knobs, workload: Workload, cap_bytes: int, by: WholeSong) -> SongTime | None:
    """Return how long the songs of a workload take with all steps of their variant; None where they do not fit."""
    work = song_work(knobs, workload, cap_bytes, by)
    if work is None:
        return None
    seconds = work.seconds_on(card)
    if knobs.lm is not None:
        written = by.writing(knobs, workload, work.thought_at_once)
        seconds = {Stage.THINK: thinking_seconds(card, knobs.backend, *written), **seconds}
    return SongTime(
        card=card.name,
        steps=steps_for(knobs.variant, 0),
        total=Seconds.around(sum(seconds.values())),
        stages={name: Seconds.around(value) for name, value in seconds.items()},
    )


def thinking_seconds(card: CardSpeed, backend: Backend, work: Work, steps: int) -> float:
    """A step takes the time of starting its kernels or of computing them, whichever is longer.

    What a step costs that is repeated from a CUDA graph is not known from any card, so none is assumed.
    """
    if backend is not Backend.VLLM:
        return max(work_seconds(work, card, launches=False), LM_LAUNCHES * card.launch_s * work.totals.launches)
    read = work.products.moved_bytes + work.attention.moved_bytes
    return read / (card.memory_gbs * 1e9 * VLLM_MEMORY_SHARE) + VLLM_STEP_S * steps
