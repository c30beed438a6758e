"""A step that is suddenly slow is told once, and what the driver moved off the card does not count as free."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import acestep.engine.run as run_module
from acestep.devices.accelerator import Accelerator
from acestep.devices.cpu import CpuDevice
from acestep.engine.pace import JUMP, LEAST_SECONDS, LEAST_STEPS, StepPace
from acestep.engine.pipeline import Pipeline
from acestep.knobs import Knobs, Offload
from acestep.request import Request
from acestep.units import GIB, silent
from tests.small_card import SmallCard, tiny_components


def told(steps: list[float]) -> str | None:
    """What is said about steps of these seconds, after the first, whose beginning is not seen."""
    times = [0.0]
    for seconds in steps:
        times.append(times[-1] + seconds)
    clock = iter(times)
    pace = StepPace(lambda: next(clock))
    watched = pace.watching(silent, SmallCard())
    for done in range(len(times)):
        watched("denoise", done + 1, len(times))
    return next(iter(pace.told()), None)


@given(st.lists(st.floats(0.01, 30), min_size=1, max_size=20))
def test_steps_of_an_even_pace_are_not_told(steps: list[float]) -> None:
    even = [min(steps) * (1 + index % 3) for index in range(len(steps))]
    assert told(even) is None


# Eighths, so that the clock's sums are exact.
EIGHTHS = st.integers(round(8 * LEAST_SECONDS), 160).map(lambda count: count / 8)


@given(usual=EIGHTHS, before=st.integers(LEAST_STEPS, 40), times=st.floats(JUMP + 0.01, 100))
def test_the_first_slow_step_is_told_with_its_number_and_both_times(usual: float, before: int, times: float) -> None:
    said = told([*[usual] * before, usual * times, usual * times])
    assert said is not None
    assert f"Step {before + 2} of" in said
    assert f"{usual:.1f} s" in said
    assert "main memory" in said


def test_short_steps_and_the_first_ones_are_not_told() -> None:
    assert told([LEAST_SECONDS / 100] * 9 + [LEAST_SECONDS / 2]) is None
    assert told([1.0, 60.0]) is None


class Clock:
    """Counts seconds, one for each look, and sixty in the sixth."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return float(self.looks + (60 if self.looks >= 6 else 0))


def test_a_run_says_it_once_and_a_probe_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(run_module, "StepPace", lambda: StepPace(clock))
    request = Request(caption="x", duration_s=1, batch=2, seed=3, steps=8)
    pipeline = Pipeline(tiny_components(), Knobs(offload=Offload.CPU), SmallCard(songs_at_once=1))
    result = pipeline.generate(request)
    assert sum("Step 6 of 8 took 61.0 s" in sentence for sentence in result.warnings) == 1
    assert sum("main memory" in sentence for sentence in result.warnings) == 1
    looks = clock.looks
    pipeline.generate(msgspec.structs.replace(request, batch=1), strict=True)
    assert clock.looks == looks
    pipeline.close()


def test_the_processor_is_not_watched() -> None:
    assert StepPace().watching(silent, CpuDevice()) is silent


@given(
    total=st.integers(1, 32),
    others=st.integers(0, 32),
    reserved=st.integers(0, 48),
    share=st.floats(0, 1),
)
def test_free_is_what_the_card_has_besides_others(total: int, others: int, reserved: int, share: float) -> None:
    total, others, reserved = total * GIB, min(others, total) * GIB, reserved * GIB
    free = max(0, total - others - reserved)
    allocated = int(share * reserved)
    backend: Any = SimpleNamespace(
        mem_get_info=lambda _: (free, total),
        memory_reserved=lambda _: reserved,
        memory_allocated=lambda _: allocated,
    )
    device = Accelerator(backend, torch.device("cpu"), torch.float32, grouped=True, workspace=0)
    usable = device.free_bytes()
    assert 0 <= usable <= total
    if reserved + others <= total:
        assert usable == free + reserved - allocated, "nothing is moved: as before"
    assert usable <= free + reserved - allocated
    assert usable + allocated <= max(total, allocated)
