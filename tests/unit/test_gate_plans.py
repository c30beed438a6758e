"""A plan that offers a card less than the plan of the base is found, whatever is less."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from acestep.knobs import Backend, Offload, Quantization
from ci.judge_plans import Planned, losses

PLAN = Planned(
    tier="tier3",
    max_duration_s={"with_lm": 480, "without_lm": 600},
    max_batch={"with_lm": 2, "without_lm": 4},
    frontier={"with_lm": {"1": 480, "2": 240}, "without_lm": {"1": 600, "4": 600}},
    reach={"with_lm": 480, "without_lm": 600},
    lm_songs_per_pass={"0.6B": 4, "1.7B": 2},
    backends_allowed=(Backend.VLLM, Backend.PT),
    init_lm=True,
    lm_models=("0.6B", "1.7B"),
    offload=Offload.CPU,
    quantization=None,
    lm="1.7B",
    lm_quantization=None,
)


def _changed(**fields: Any) -> Planned:
    return msgspec.structs.replace(PLAN, **fields)


WORSE: dict[str, Callable[[], Planned]] = {
    "max_duration_s.with_lm": lambda: _changed(max_duration_s=PLAN.max_duration_s | {"with_lm": 479}),
    "max_batch.without_lm": lambda: _changed(max_batch=PLAN.max_batch | {"without_lm": 2}),
    "frontier.with_lm.2": lambda: _changed(frontier=PLAN.frontier | {"with_lm": {"1": 480}}),
    "reach.without_lm": lambda: _changed(reach={"with_lm": 480}),
    "lm_models": lambda: _changed(lm_models=("1.7B",)),
    "lm": lambda: _changed(lm="0.6B"),
    "lm_songs_per_pass.0.6B": lambda: _changed(lm_songs_per_pass=PLAN.lm_songs_per_pass | {"0.6B": 3}),
    "backends_allowed": lambda: _changed(backends_allowed=(Backend.PT,)),
    "init_lm": lambda: _changed(init_lm=False),
    "offload": lambda: _changed(offload=Offload.CPU_DIT),
    "quantization": lambda: _changed(quantization=Quantization.INT8),
    "lm_quantization": lambda: _changed(lm_quantization=Quantization.INT8),
}


@pytest.mark.parametrize("field", WORSE)
def test_what_is_less_is_found_and_what_is_more_is_not(field: str) -> None:
    worse = WORSE[field]()
    assert [name for name, _, _ in losses(PLAN, worse)] == [field]
    assert field not in [name for name, _, _ in losses(worse, PLAN)]


def test_the_same_plan_is_no_loss() -> None:
    assert not list(losses(PLAN, PLAN))


def test_a_larger_language_model_may_be_quantized() -> None:
    larger = _changed(lm="4B", lm_models=(*PLAN.lm_models, "4B"), lm_quantization=Quantization.INT8)
    assert not list(losses(PLAN, larger))
