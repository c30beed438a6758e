"""The work of a whole song, from probes that compute a few steps of it, and how long a card takes for it."""

from typing import Final, Protocol

import msgspec

from acestep.dit.sampler import steps_for
from acestep.knobs import Backend, Knobs, Offload
from acestep.stage import Stage
from calibrate.probes.base import ProbeResult
from calibrate.probes.work import Work
from calibrate.timing.cards import CardSpeed
from calibrate.timing.roofline import LM_LAUNCH_S, Seconds, work_seconds
from calibrate.workload import PROBE_STEPS, Workload

VLLM_MEMORY_SHARE: Final = 0.80
VLLM_STEP_S: Final = 1.2e-3
"""vLLM replays a whole step as one graph: what it reads of the memory's peak rate, and the fixed time of a step."""


class WholeSong(Protocol):
    """What knows the work of a song: the simulated card."""

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        """Run a few steps under a cap."""
        ...

    def writing(self, knobs: Knobs, workload: Workload, at_once: int) -> tuple[Work, int]:
        """Return the work of writing the plan and all codes, `at_once` songs in a pass, and the number of steps."""
        ...


class SongTime(msgspec.Struct, frozen=True, kw_only=True):
    """How long a song takes on a card, in whole and by stages; `steps` are those of denoising."""

    card: str
    steps: int
    total: Seconds
    stages: dict[str, Seconds]


def song_time(card: CardSpeed, knobs: Knobs, workload: Workload, cap_bytes: int, by: WholeSong) -> SongTime | None:
    """Return how long the songs of a workload take with all steps of their variant; None where they do not fit."""
    steps = steps_for(knobs.variant, 0)
    probes = [
        by.probe(knobs, msgspec.structs.replace(workload, steps=count), cap_bytes)
        for count in (PROBE_STEPS, PROBE_STEPS + 1)
    ]
    few, more = (probe.work for probe in probes)
    if Stage.DECODE not in few or Stage.DECODE not in more:
        return None
    step = more[Stage.DENOISE].plus(few[Stage.DENOISE], -1)
    whole = few | {Stage.DENOISE: few[Stage.DENOISE].plus(step, steps - PROBE_STEPS)}
    streams = knobs.offload is Offload.STREAM
    seconds = {name: work_seconds(work, card, overlaps=streams) for name, work in whole.items() if name != Stage.THINK}
    if knobs.lm is not None:
        at_once = next(stage.songs_per_pass for stage in probes[0].stages if stage.name == Stage.THINK)
        thinking = _thinking_seconds(card, knobs.backend, *by.writing(knobs, workload, at_once))
        seconds = {Stage.THINK: thinking, **seconds}
    return SongTime(
        card=card.name,
        steps=steps,
        total=Seconds.around(sum(seconds.values())),
        stages={name: Seconds.around(value) for name, value in seconds.items()},
    )


def _thinking_seconds(card: CardSpeed, backend: Backend, work: Work, steps: int) -> float:
    """A step takes the time of starting its kernels or of computing them, whichever is longer.

    What a step costs that is repeated from a CUDA graph is not known from any card, so none is assumed.
    """
    if backend is not Backend.VLLM:
        return max(work_seconds(work, card, launch_s=0.0), LM_LAUNCH_S * work.totals.launches)
    read = work.products.moved_bytes + work.attention.moved_bytes
    return read / (card.memory_gbs * 1e9 * VLLM_MEMORY_SHARE) + VLLM_STEP_S * steps
