"""Products of a few rows: every form gives the same, and the fastest is taken where it is clearly faster."""

import sys
import time
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from acestep.checkpoints.architecture import QwenArchitecture, arguments
from acestep.checkpoints.libraries import Qwen3Config, Qwen3ForCausalLM
from acestep.checkpoints.lm import LanguageModel
from acestep.devices.cpu import CpuDevice
from acestep.knobs import Knobs
from acestep.lm.backends.pt import PtBackend
from acestep.lm.language import Language
from acestep.lm.products import FEW_ROWS, FOUR, LARGE, Product, Products, by_fours, finer, thread_clock, turned
from acestep.units import silent
from tests.grammars import Counted, job_of
from tests.small_card import SmallCard

WEIGHT = (LARGE, LARGE)
"""The smallest weight for which the form is chosen."""


class Stopwatch:
    """A clock on which every form takes as long as `seconds` says for its rows and the width of the weight."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[str, int], float]) -> None:
        self.now, self.timed = 0.0, 0
        for name, form in (("F.linear", F.linear), ("turned", turned), ("by_fours", by_fours)):
            monkeypatch.setattr(f"acestep.lm.products.{name}", self._taking(name, seconds, form))

    def _taking(self, name: str, seconds: Callable[[str, int], float], form: Product) -> Product:
        def taken(rows: Tensor, weight: Tensor) -> Tensor:
            self.now += seconds(name, weight.shape[1])
            return form(rows, weight)

        return taken

    def __call__(self) -> float:
        self.timed += 1
        return self.now


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", [turned, by_fours])
@pytest.mark.parametrize("rows", [1, 2, 3, FOUR, FOUR + 1, FEW_ROWS])
def test_every_form_gives_the_same(rows: int, form: Product, dtype: torch.dtype) -> None:
    hidden, weight = torch.randn(rows, LARGE).to(dtype), torch.randn(*WEIGHT).to(dtype)
    found, expected = form(hidden, weight), F.linear(hidden, weight)
    assert found.is_contiguous()
    assert found.dtype is dtype
    assert (found - expected).norm() <= 4 * torch.finfo(dtype).eps * expected.norm()


@pytest.mark.parametrize(("seconds", "taken"), [(0.5, 0.5), (0.89, 0.89), (0.95, 1), (1, 1), (3, 1)])
@pytest.mark.parametrize(("form", "rows"), [("turned", 2), ("turned", FEW_ROWS), ("by_fours", FOUR + 1)])
def test_another_form_is_taken_where_it_is_clearly_faster(
    seconds: float, taken: float, form: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Stopwatch(monkeypatch, lambda name, _: {"F.linear": 1, form: seconds}.get(name, 9))
    products, weight = Products(CpuDevice(), clock), torch.randn(*WEIGHT)
    hidden = torch.randn(rows, LARGE)
    for _ in range(20):
        assert torch.allclose(products.product(hidden, weight), hidden @ weight.T, atol=1e-3), "a trial's result counts"
    before, timed = clock.now, clock.timed
    products.product(hidden, weight)
    assert clock.now - before == pytest.approx(taken)
    assert clock.timed == timed, "timed again"


def test_each_shape_of_a_weight_has_its_own_form(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Stopwatch(monkeypatch, lambda name, width: width if name == "turned" else 2 * LARGE)
    products = Products(CpuDevice(), clock)
    taken = []
    for width in (LARGE, 4 * LARGE, LARGE):
        hidden, weight = torch.zeros(2, width), torch.zeros(LARGE, width)
        for _ in range(20):
            products.product(hidden, weight)
        before = clock.now
        products.product(hidden, weight)
        taken.append(clock.now - before)
    assert taken == [LARGE, 2 * LARGE, LARGE]


def test_one_slow_call_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of a weight that is read from the disk, at the first call of the form that is faster."""
    slow = iter([100.0])
    clock = Stopwatch(monkeypatch, lambda name, _: next(slow, 0.5) if name == "turned" else 1)
    products, hidden, weight = Products(CpuDevice(), clock), torch.zeros(2, LARGE), torch.zeros(*WEIGHT)
    for _ in range(20):
        products.product(hidden, weight)
    before = clock.now
    products.product(hidden, weight)
    assert clock.now - before == pytest.approx(0.5)


class Ticking:
    """A clock that goes on by `call` seconds whenever it is read, and shows whole multiples of `tick` seconds."""

    def __init__(self, tick: float, call: float, begun: float = 0) -> None:
        self.tick, self.call, self.now = tick, call, begun

    def __call__(self) -> float:
        self.now += self.call
        return self.now // self.tick * self.tick


@pytest.mark.parametrize("begun", [0, 0.0156 / 2, 0.0156 - 1e-5, 0.0156 - 1.5e-6])
def test_a_clock_that_ticks_too_rarely_to_time_a_product_is_not_used(begun: float) -> None:
    """As on Windows, however near its next tick it is looked at."""
    coarse, passing = Ticking(0.0156, 1e-6, begun), Ticking(1e-7, 1e-6)
    assert finer(coarse, passing) is passing


@pytest.mark.parametrize("tick", [1e-9, 1e-7, 1e-6, 1e-5])
def test_a_clock_that_ticks_often_is_used(tick: float) -> None:
    fine = Ticking(tick, 1e-6)
    assert finer(fine, Ticking(1e-7, 1e-6)) is fine


def test_an_interruption_does_not_make_a_clock_coarse() -> None:
    interrupted = iter([1.0, 1.004])
    fine = Ticking(1e-9, 1e-6, 1.004)
    assert finer(clock := lambda: next(interrupted, None) or fine(), Ticking(1e-7, 1e-6)) is clock


def test_the_seconds_that_a_thread_waits_are_not_counted_where_the_system_can_tell() -> None:
    assert thread_clock() in (time.thread_time, time.perf_counter)
    if sys.platform == "linux":
        assert thread_clock() is time.thread_time


@pytest.mark.parametrize(
    ("rows", "shape", "device", "dtype"),
    [
        (1, WEIGHT, CpuDevice(), torch.float32),
        (FEW_ROWS + 1, WEIGHT, CpuDevice(), torch.float32),
        (2, (LARGE, LARGE - 1), CpuDevice(), torch.float32),
        (2, WEIGHT, SmallCard(), torch.float32),
        (2, WEIGHT, CpuDevice(), torch.bfloat16),
    ],
)
def test_nothing_is_timed_where_it_cannot_pay_or_could_change_a_token(
    rows: int, shape: tuple[int, int], device: CpuDevice, dtype: torch.dtype
) -> None:
    ticks: Iterator[float] = iter(())
    products = Products(device, lambda: next(ticks))
    weight = torch.randn(*shape).to(dtype)
    hidden = torch.randn(rows, shape[1]).to(dtype)
    assert torch.equal(products.product(hidden, weight), F.linear(hidden, weight))


def _model() -> LanguageModel:
    torch.manual_seed(5)
    shape = QwenArchitecture(
        vocab_size=1_024,
        hidden_size=512,
        intermediate_size=1_024,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
    )
    module = Qwen3ForCausalLM(Qwen3Config(**arguments(shape), tie_word_embeddings=True))
    return LanguageModel(id="few-rows", module=module.eval().requires_grad_(False), is_noise="tiny")


def test_a_model_writes_the_same_tokens_with_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = PtBackend(_model(), CpuDevice())
    jobs = [job_of(Counted(12, range(1_024)), range(20), range(18), seed=seed) for seed in range(3)]
    used: list[int] = []

    def written(form: Product) -> list[tuple[int, ...]]:
        def chosen(self: Products, rows: Tensor, weight: Tensor) -> Tensor:
            used.append(len(rows))
            return form(rows, weight)

        monkeypatch.setattr(Products, "_in_fastest_form", chosen)
        return backend.write(jobs, lambda step, most: None)

    assert written(F.linear) == written(turned) == written(by_fours)
    assert set(used) == {6}, "the rows of a step, not the tokens of a prompt"


def test_forms_are_timed_in_a_models_first_song_only(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Stopwatch(monkeypatch, lambda *_: 1)
    monkeypatch.setattr("acestep.lm.products.LARGE", 1)
    monkeypatch.setattr("acestep.lm.products.thread_clock", lambda: clock)
    language = Language("tiny", Knobs(lm="0.6B"), CpuDevice(), longest_s=10, warn=pytest.fail)
    jobs, timed = [job_of(Counted(12, range(900)), seed=seed) for seed in range(3)], list[int]()
    for _ in range(3):
        language.write(jobs, silent)
        timed.append(clock.timed)
    assert timed[0] == timed[1] == timed[2] > 0
