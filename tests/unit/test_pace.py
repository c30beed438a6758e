"""A step that is suddenly slow is told once, and what the driver moved off the card does not count as free."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import acestep.engine.pipeline as pipeline_module
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
    for seconds in (0.0, *steps):
        times.append(times[-1] + seconds)
    clock = iter(times[1:])
    pace = StepPace(CpuDevice(), lambda: next(clock))
    watched = pace.watching(silent)
    for done in range(len(steps) + 1):
        watched("denoise", done + 1, len(steps) + 1)
    return pace.slow


@given(st.lists(st.floats(0.01, 30), min_size=1, max_size=20))
def test_steps_of_an_even_pace_are_not_told(steps: list[float]) -> None:
    even = [min(steps) * (1 + index % 3) for index in range(len(steps))]
    assert told(even) is None


@given(usual=st.floats(LEAST_SECONDS, 20), before=st.integers(LEAST_STEPS, 40), times=st.floats(JUMP + 0.01, 100))
def test_the_first_slow_step_is_told_with_its_number_and_both_times(usual: float, before: int, times: float) -> None:
    said = told([*[usual] * before, usual * times, usual * times])
    assert said is not None
    assert f"Step {before + 2} of" in said
    assert f"{usual:.1f} s" in said
    assert "main memory" in said


def test_short_steps_and_the_first_ones_are_not_told() -> None:
    assert told([LEAST_SECONDS / 100] * 9 + [LEAST_SECONDS / 2]) is None
    assert told([1.0, 60.0]) is None


def test_a_run_says_it_once_and_a_probe_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def slow_in_the_sixth(device: Any) -> StepPace:
        clock = iter([1.0, 2.0, 3.0, 4.0, 5.0, 65.0, 66.0, 67.0])
        made.append(1)
        return StepPace(device, lambda: next(clock))

    monkeypatch.setattr(pipeline_module, "StepPace", slow_in_the_sixth)
    request = Request(caption="x", duration_s=1, batch=2, seed=3, steps=8)
    pipeline = Pipeline(tiny_components(), Knobs(offload=Offload.CPU), SmallCard())
    result = pipeline.generate(request)
    assert sum("Step 6 of 8 took 60.0 s" in sentence for sentence in result.warnings) == 1
    assert len(made) == 1
    pipeline.generate(request, strict=True)
    assert len(made) == 1
    pipeline.close()


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
