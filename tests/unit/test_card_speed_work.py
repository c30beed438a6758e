"""The operations of a song are those of the products that it consists of, whichever release of PyTorch counts them."""

from functools import cache

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

from acestep.checkpoints.build import build
from acestep.checkpoints.components import Components
from acestep.devices.cpu import CpuDevice
from acestep.engine.pipeline import Pipeline, prepare
from acestep.knobs import Knobs, Variant
from acestep.request import Request
from tools import work_of_a_song
from tools.speed_bench import Ceilings, SpeedBench, SpeedSide, WeightsPlace
from tools.work_of_a_song import CountingKernels, attention_flops, song_flops, weightless

SONG = Request(caption="slow piano", lyrics="la la", duration_s=2, batch=2, seed=3, steps=3)


@pytest.fixture(scope="module")
def components() -> Components:
    return weightless("tiny", Variant.TURBO)


@pytest.fixture(scope="module")
def flops(components: Components) -> int:
    """What the song takes."""
    return song_flops(components, SONG)


def heads(query: int, groups: int, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty(2, query, rows, 32, device="meta"),
        torch.empty(2, groups, columns, 32, device="meta"),
        torch.empty(2, groups, columns, 32, device="meta"),
    )


@pytest.mark.parametrize(("query", "groups"), [(16, 8), (16, 16), (8, 1)])
@pytest.mark.parametrize(("rows", "columns"), [(70, 70), (64, 320), (1, 9)])
def test_grouped_heads_count_as_much_as_the_same_heads_expanded(
    query: int, groups: int, rows: int, columns: int
) -> None:
    q, k, v = heads(query, groups, rows, columns)
    expanded = [tensor.repeat_interleave(query // groups, 1) for tensor in (k, v)]
    with FlopCounterMode(display=False) as products:
        (q @ expanded[0].transpose(-1, -2)).softmax(-1) @ expanded[1]
    assert attention_flops(q, k, v) == attention_flops(q, *expanded) == products.get_total_flops()


def test_every_attention_is_counted_once_and_has_the_shape_that_it_should() -> None:
    q, k, v = heads(16, 8, 70, 70)
    with CountingKernels() as kernels:
        results = [F.scaled_dot_product_attention(q, k, v, enable_gqa=True) for _ in range(3)]
    assert kernels.flops == 3 * attention_flops(q, k, v)
    assert {result.shape for result in results} == {q.shape}


def test_without_values_a_song_counts_what_is_counted_while_it_is_computed(flops: int) -> None:
    """With scores written out as matrix products, of which PyTorch misses none."""
    with_values = build("tiny", dtype=torch.float32)
    prepare(with_values, Knobs())
    pipeline = Pipeline(with_values, Knobs(), CpuDevice())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as computed:
        pipeline.generate(SONG, strict=True)
    pipeline.close()
    assert flops == computed.get_total_flops()


def test_no_step_is_left_out_and_none_counts_twice(components: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    # However many steps are asked about, songs of one and of two are counted: once here.
    monkeypatch.setattr(work_of_a_song, "_counted", cache(work_of_a_song._counted))
    by_steps = [song_flops(components, msgspec.structs.replace(SONG, steps=steps)) for steps in (1, 2, 8, 0)]
    assert by_steps[2] - by_steps[0] == 7 * (by_steps[1] - by_steps[0]) > 0
    assert by_steps[3] == by_steps[2], "without a wish it is eight"


def test_a_release_whose_formula_refuses_grouped_heads_counts_all_the_same(
    components: Components, flops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> int:
        raise AssertionError("sdpa_flop_count: query/key/value shapes are incompatible")

    for name in (
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_cudnn_attention",
    ):
        monkeypatch.setitem(flop_counter.flop_registry, getattr(torch.ops.aten, name), refuses)
    assert song_flops(components, SONG) == flops


def test_what_one_side_cannot_do_is_a_point_with_its_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = SpeedBench("tiny", rounds=1)

    def fails(*_: object) -> tuple[float, int]:
        raise NotImplementedError("no such kernel\nand much more")

    monkeypatch.setattr(bench, "_timed", fails)
    point = bench.point(SpeedSide.LIBRARY, WeightsPlace.RESIDENT, SONG, Ceilings(flops_per_s=1, bytes_per_s=1))
    assert point.problem == "NotImplementedError: no such kernel"
    assert point.seconds == 0


def test_a_card_error_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = SpeedBench("tiny", rounds=1)

    def fails(*_: object) -> tuple[float, int]:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(bench, "_timed", fails)
    with pytest.raises(torch.AcceleratorError):
        bench.point(SpeedSide.OURS, WeightsPlace.RESIDENT, SONG, Ceilings(flops_per_s=1, bytes_per_s=1))
