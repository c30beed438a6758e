"""A run that is stopped ends with the step that it is in, whichever that is: no other begins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acestep.clip import SAMPLE_RATE, Clip
from acestep.dit.denoiser import Denoiser
from acestep.dit.vae_decode import TileDecoder
from acestep.dit.vae_encode import TileEncoder
from acestep.engine import service
from acestep.limits.plan import Overrides
from acestep.lm.backends.pt import Decoder
from acestep.request import Request
from acestep.serving.visits import StoppedError, Visit
from acestep.ui.studio import Studio

STEPS: dict[str, tuple[Any, str]] = {
    "loading the language model": (service.Service, "_thinker"),
    "loading the model": (service.Service, "_parts"),
    "placing the model": (service.Service, "_pipeline"),
    "a word of the plan": (Decoder, "step"),
    "a tile of the reference": (TileEncoder, "forward"),
    "a step of the sampler": (Denoiser, "velocity"),
    "a tile of the song": (TileDecoder, "forward"),
}
"""What a run spends its time with: the piece of code that is one step of it."""


class Watch:
    """Notes each step as it begins, and stops the visit's run in the middle of the first one called `stopped_in`."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self.stopped_in = ""
        self.begun: list[str] = []

    def __call__(self, step: Callable[..., Any], name: str) -> Callable[..., Any]:
        def noted(*given: Any, **named: Any) -> Any:
            self.begun.append(name)
            if name == self.stopped_in:
                self.visit.stop()
            return step(*given, **named)

        return noted


def test_no_step_begins_after_the_one_in_which_a_run_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_CUDA_VRAM", "8")
    monkeypatch.setenv("ACESTEP_VAE_CHUNK", "64")
    monkeypatch.setattr("acestep.lm.grammar.MAX_CAPTION_TOKENS", 12)
    # Two tiles of reference, as the song has two.
    monkeypatch.setattr("acestep.engine.encode_audio.REFERENCE_S", 6)
    studio = Studio("tiny", Overrides(compile=False), tmp_path)
    watch = Watch(studio.sessions.of("ann"))
    for name, (owner, method) in STEPS.items():
        monkeypatch.setattr(owner, method, watch(getattr(owner, method), name))
    controls, _ = studio.start()
    noise = np.random.default_rng(1).standard_normal((2, 6 * SAMPLE_RATE)).astype(np.float32) / 10
    request = Request(caption="drums", think=True, duration_s=3, steps=2, seed=3, reference_audio=Clip(audio=noise))

    def run() -> None:
        watch.begun.clear()
        with watch.visit.run():
            studio.generate(request, controls, "wav", watch.visit, lambda path: path)

    for stopped_in in STEPS:
        watch.stopped_in = stopped_in
        with pytest.raises(StoppedError):
            run()
        assert (watch.begun[-1], watch.begun.count(stopped_in)) == (stopped_in, 1)
        assert (watch.visit.progress.stage, watch.visit.failure) == ("stopped", None)
    watch.stopped_in = ""
    run()
    # Left alone, it goes on after each of them, and most of them come several times.
    assert [watch.begun.count(step) > 1 for step in STEPS] == [False] * 3 + [True] * 4
    studio.close()
