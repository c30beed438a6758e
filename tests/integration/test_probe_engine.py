"""What a prober's child runs, on a card of ordinary memory: the shipped pipeline, and nothing kept between runs."""

import gc

import msgspec
import pytest
import torch
from torch import Tensor

from acestep.devices.base import Device
from acestep.dit.sampler import steps_for
from acestep.errors import NotMeasuredError
from acestep.knobs import Backend, Knobs, Offload, Quantization, Variant
from acestep.request import DecodePath
from acestep.units import GIB
from calibrate.probes.engine import PipelineEngine
from calibrate.probes.messages import Order, setup_for
from calibrate.workload import PROBE_STEPS, Workload
from tests.copying_cards import EagerCard

SHORT = Workload(batch=2, duration_s=4, lyric_tokens=64)


class CountedCard(EagerCard):
    """Counts what was ever moved to it in a stage, and has no room beyond its cap."""

    def __init__(self, cap_bytes: int) -> None:
        super().__init__()
        self.cap_bytes = cap_bytes
        self.moved = 0

    def begin_stage(self, name: str) -> None:
        self.moved = 0

    def upload(self, host: Tensor, owner: str) -> Tensor:
        self.moved += host.nbytes
        if self.moved > self.cap_bytes:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().upload(host, owner)

    def free_bytes(self) -> int:
        return self.cap_bytes

    def end_stage(self) -> tuple[int, int]:
        return self.moved, self.moved


class MadeUpCard:
    """A machine with such a card, or with none."""

    def __init__(self, *, there: bool = True) -> None:
        self.there = there
        self.caps: list[int] = []

    def open(self) -> torch.dtype:
        if not self.there:
            raise NotMeasuredError("no card")
        return torch.float32

    def capped(self, cap_bytes: int) -> Device:
        self.caps.append(cap_bytes)
        return CountedCard(cap_bytes)

    def settings(self) -> str:
        return "expandable_segments:True"

    def outside_bytes(self) -> int:
        return 7

    def flush(self) -> int:
        return gc.collect() * 0


USUAL = Knobs(offload=Offload.CPU_DIT)


def loaded(knobs: Knobs = USUAL) -> PipelineEngine:
    engine = PipelineEngine(MadeUpCard())
    assert engine.load(setup_for(knobs, "tiny")) == "expandable_segments:True"
    return engine


def order(knobs: Knobs = USUAL, *, cap_bytes: int = GIB, workload: Workload = SHORT, full: bool = False) -> Order:
    return Order(number=1, knobs=knobs, workload=workload, cap_bytes=cap_bytes, full=full)


@pytest.mark.parametrize("full", [False, True])
def test_a_probe_takes_two_steps_and_a_certificate_all(full: bool) -> None:
    signs: list[str] = []
    loaded().run(order(full=full), signs.append)
    steps = steps_for(Variant.TURBO, 0) if full else PROBE_STEPS
    assert signs.count("denoise") == 1 + steps, "one as it begins, and one for each step"


def test_every_stage_is_noted_with_what_lay_outside() -> None:
    engine = loaded()
    done = engine.run(order(), lambda stage: None)
    assert (done.songs_per_pass, done.decode_path) == (2, DecodePath.GPU)
    assert [(stage.name, stage.songs_per_pass) for stage in engine.stages] == [
        ("encode", 1),
        ("denoise", 2),
        ("decode", 1),
    ]
    assert all(stage.peak_allocated_bytes > 0 and stage.outside_bytes == 7 for stage in engine.stages)


@pytest.mark.parametrize(
    "knobs",
    [Knobs(), Knobs(offload=Offload.STREAM_ENCODERS), Knobs(offload=Offload.CPU, quantization=Quantization.INT8)],
)
def test_runs_of_one_loaded_model_are_alike_also_after_one_that_ran_out(knobs: Knobs) -> None:
    def peaks() -> list[tuple[str, int]]:
        engine.run(order(knobs), lambda stage: None)
        return [(stage.name, stage.peak_allocated_bytes) for stage in engine.stages]

    engine = loaded(knobs)
    first = peaks()
    with pytest.raises(torch.OutOfMemoryError):
        engine.run(order(knobs, cap_bytes=100_000), lambda stage: None)
    assert peaks() == first
    # Another way to place the same weights in between changes nothing.
    engine.run(order(msgspec.structs.replace(knobs, offload=Offload.STREAM)), lambda stage: None)
    assert peaks() == first


def test_a_run_that_ran_out_shows_how_far_it_came() -> None:
    engine = loaded()
    engine.run(order(), lambda stage: None)
    needed = engine.stages[0].peak_allocated_bytes
    with pytest.raises(torch.OutOfMemoryError):
        engine.run(order(cap_bytes=needed - 1), lambda stage: None)
    assert [(stage.name, stage.peak_allocated_bytes >= needed) for stage in engine.stages] == [("encode", True)]


def test_every_run_is_capped_anew() -> None:
    engine = PipelineEngine(card := MadeUpCard())
    engine.load(setup_for(Knobs(), "tiny"))
    for cap_bytes in (GIB, GIB // 2):
        engine.run(order(cap_bytes=cap_bytes), lambda stage: None)
    assert card.caps == [GIB, GIB // 2]


def test_without_a_card_nothing_is_loaded() -> None:
    with pytest.raises(NotMeasuredError, match="no card"):
        PipelineEngine(MadeUpCard(there=False)).load(setup_for(Knobs(), "no such model"))


def test_a_language_model_rehearses_its_longest_prompts_and_the_songs_follow_its_codes() -> None:
    knobs = Knobs(offload=Offload.CPU_DIT, lm="0.6B")
    engine, thinking = loaded(knobs), msgspec.structs.replace(SHORT, with_lm=True)
    for _ in range(2):
        done = engine.run(order(knobs, workload=thinking), lambda _: None)
        assert done.songs_per_pass == 2
        assert not done.warnings
        stages = {stage.name: stage for stage in engine.stages}
        assert list(stages)[:2] == ["think", "encode_audio"]
        assert stages["think"].songs_per_pass == 2


def test_vllm_is_probed_with_real_weights_or_not_at_all() -> None:
    knobs = Knobs(lm="4B", backend=Backend.VLLM)
    engine = loaded(knobs)
    engine._model = "dummy"
    with pytest.raises(NotMeasuredError, match="real weights"):
        engine.run(order(knobs, workload=msgspec.structs.replace(SHORT, with_lm=True)), lambda _: None)
