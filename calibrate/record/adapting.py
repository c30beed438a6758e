"""Which stages adapt to free memory: where less is free, they do less at a time and take less."""

from msgspec import UNSET

from acestep.knobs import STREAMING, Knobs
from acestep.stage import Stage
from calibrate.workload import Workload


def adapts(stage: str, knobs: Knobs, workload: Workload) -> bool:
    """Whether a stage adapts to free memory, so that its peaks are not comparable across runs.

    Thinking chooses how many songs it writes at a time, and decoding its tiles. Denoising with streamed blocks runs the
    passes of a step together where they fit: those of guidance, and of a cover that follows its source only partly
    (`acestep.engine.denoise`).
    """
    if stage != Stage.DENOISE:
        return stage in (Stage.THINK, Stage.DECODE)
    weak_cover = workload.cover_strength is not UNSET and workload.cover_strength < 1
    guided = not knobs.variant.is_turbo
    return knobs.offload in STREAMING and (guided or weak_cover)
