"""The operations of a song are those of the products that it consists of."""

from functools import cache

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from acestep.checkpoints.build import build
from acestep.checkpoints.components import Components
from acestep.devices.cpu import CpuDevice
from acestep.engine.pipeline import Pipeline, prepare
from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.knobs import Knobs, Variant
from acestep.request import Request
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.work_counter import NOTHING, work_between
from tools import work_of_a_song
from tools.speed_bench import Ceilings, SpeedBench, SpeedSide, WeightsPlace
from tools.work_of_a_song import song_flops, weightless

SONG = Request(caption="slow piano", lyrics="la la", duration_s=2, batch=2, seed=3, steps=3)


@pytest.fixture(scope="module")
def components() -> Components:
    return weightless("tiny", Variant.TURBO)


@pytest.fixture(scope="module")
def flops(components: Components) -> int:
    """What the song takes."""
    return song_flops(components, SONG)


@pytest.mark.parametrize(("query", "groups"), [(16, 8), (16, 16), (8, 1)])
@pytest.mark.parametrize(("rows", "columns"), [(70, 70), (64, 320), (1, 9)])
def test_grouped_heads_count_as_much_as_the_same_heads_expanded(
    query: int, groups: int, rows: int, columns: int
) -> None:
    q = torch.empty(2, query, rows, 32, device="meta", dtype=torch.bfloat16)
    k, v = (torch.empty(2, groups, columns, 32, device="meta", dtype=torch.bfloat16) for _ in range(2))
    with CudaKernels(SIMULATED_CAPABILITY) as kernels:
        result = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    expanded = [tensor.repeat_interleave(query // groups, 1) for tensor in (k, v)]
    with FlopCounterMode(display=False) as products:
        (q @ expanded[0].transpose(-1, -2)).softmax(-1) @ expanded[1]
    assert work_between(NOTHING, kernels.work.counts).attention.flops == products.get_total_flops()
    assert result.shape == q.shape


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
