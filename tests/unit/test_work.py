"""The work of a stage is counted from layouts: as PyTorch counts it, and the same where calls are only repeated."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from acestep.engine import denoise as denoise_stage
from acestep.knobs import Knobs, Offload, Variant
from acestep.units import GIB
from calibrate.probes.base import MeasuredStage, ProbeResult
from calibrate.probes.simulated.memo import Memo, Regions
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.probes.simulated.work_counter import work_between
from calibrate.probes.work import KernelSums, Work, WorkTotals
from calibrate.workload import Workload
from ci.cells import GateCell
from ci.judge_code import CODE_ERRORS
from ci.judge_work import work_findings
from tests.fakes import measured
from tests.simulated_card import Card, meta

SIZES = st.integers(1, 9)


def work_of(run: Callable[[], object]) -> Work:
    card = Card()
    with card.on():
        before = card.kernels.work.counts
        run()
        return work_between(before, card.kernels.work.counts)


@given(SIZES, SIZES, SIZES, SIZES)
def test_operations_of_products_and_convolutions_are_those_that_pytorch_counts(a: int, b: int, c: int, d: int) -> None:
    def run() -> None:
        torch.mm(meta(a, b), meta(b, c))
        torch.addmm(meta(c), meta(a, b), meta(b, c))
        torch.bmm(meta(d, a, b), meta(d, b, c))
        torch.baddbmm(meta(d, a, c), meta(d, a, b), meta(d, b, c))
        F.conv1d(meta(a, b, 16), meta(c, b, 5), padding=d)
        F.conv_transpose1d(meta(a, b, 16), meta(b, c, 5), stride=2)

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    work = work_of(run)
    assert work.totals.flops == counter.get_total_flops()
    assert (work.products.launches, work.convolutions.launches) == (4, 2)


@given(st.integers(1, 9), st.integers(10, 10_000))
def test_a_look_up_reads_the_rows_that_it_takes_and_not_the_table(taken: int, rows: int) -> None:
    table, at = meta(rows, 32), meta(taken, dtype=torch.int64)
    for look_up in (lambda: F.embedding(at, table), lambda: table.index_select(0, at)):
        assert work_of(look_up) == Work(others=_kernel(2 * 32 * taken + 8 * taken, 2 * 32 * taken))


def test_a_kernel_reads_its_arguments_and_writes_its_result() -> None:
    wide, row = meta(64, 32), meta(32)
    assert work_of(lambda: wide + row) == Work(others=_kernel(2 * (64 * 32 + 32), 2 * 64 * 32))
    assert work_of(lambda: wide + row.expand(64, 32)) == Work(others=_kernel(2 * (64 * 32 + 32), 2 * 64 * 32))
    assert work_of(lambda: wide.view(-1)[3:].reshape(1, -1)) == Work()
    assert work_of(lambda: torch.empty(8, device="meta")) == Work()


def test_attention_is_one_kernel_and_reads_no_scores() -> None:
    query, key = meta(2, 4, 10, 8), meta(2, 4, 30, 8)
    work = work_of(lambda: F.scaled_dot_product_attention(query, key, key))
    assert work.attention.flops == 2 * 2 * (2 * 4 * 10 * 30 * 8)
    assert work.attention.moved_bytes == 2 * (2 * query.numel() + 2 * key.numel())
    assert work.attention.launches == 1


def test_what_crosses_the_bus_is_counted_in_both_directions() -> None:
    card = Card()
    with card.on():
        before = card.kernels.work.counts
        there = card.device.upload(torch.zeros(10, dtype=torch.float32), "latents")
        card.device.fetch([(there, torch.zeros(10))], card.device.mark())
        there.to("cpu")
        work = work_between(before, card.kernels.work.counts)
    assert work == Work(transferred_bytes=3 * 40, waits=1)


def test_the_host_waits_where_a_result_is_copied_to_it_and_where_it_says_so() -> None:
    there, here = meta(4, 6), torch.empty(4, 6, dtype=torch.bfloat16)
    assert work_of(there.cpu).waits == work_of(there.tolist).waits == 1
    assert work_of(lambda: here.copy_(there)).waits == 1
    assert work_of(lambda: there.to("cpu", non_blocking=True)).waits == 0
    assert work_of(lambda: here.copy_(there, non_blocking=True)).waits == 0
    assert work_of(lambda: there + there.view(-1)[:6]).waits == 0
    card = Card()
    with card.on():
        before = card.kernels.work.counts
        card.device.synchronize()
        card.device.download(np.zeros((4, 6)), there)
        # An array with gaps comes row by row, as from a card.
        card.device.download(np.zeros((4, 8))[:, :6], there)
        card.device.upload(here, "noise")
        assert work_between(before, card.kernels.work.counts).waits == 1 + 1 + 4


@pytest.mark.parametrize("ask", [torch.Tensor.item, torch.Tensor.nonzero, bool])
def test_what_asks_the_card_for_a_value_cannot_be_simulated_at_all(ask: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises(CODE_ERRORS):
        work_of(lambda: ask(meta(1)))


@pytest.mark.parametrize("memoised", [True, False])
def test_repeated_calls_count_as_computed_ones(memoised: bool) -> None:
    class Layer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x[0].cpu()
            return torch.tanh(x @ x)

    layer, card = Layer(), Card()
    with card.on(), Memo(card.ledger, card.tape, Regions()).patched((Layer,) if memoised else ()):
        x = meta(16, 16)
        x = layer(x)
        once = card.kernels.work.counts
        for _ in range(3):
            x = layer(x)
        thrice = work_between(once, card.kernels.work.counts)
    assert thrice == Work(
        products=msgspec.structs.replace(_kernel(3 * 1024, 3 * 512), flops=3 * 2 * 16**3, launches=3),
        others=msgspec.structs.replace(_kernel(3 * 512, 3 * 512), launches=3),
        transferred_bytes=3 * 32,
        waits=3,
    )


@pytest.fixture(scope="module")
def prober() -> SimulatedProber:
    return SimulatedProber()


def probed(prober: SimulatedProber, **fields: Any) -> ProbeResult:
    knobs = Knobs(variant=Variant.TURBO, offload=Offload.CPU_DIT, compile=False)
    return prober.probe(knobs, Workload(**({"batch": 1, "duration_s": 10.0} | fields)), 16 * GIB)


def test_work_grows_with_steps_and_songs_by_what_one_of_them_takes(prober: SimulatedProber) -> None:
    two, three, four = (probed(prober, steps=steps).work for steps in (2, 3, 4))
    step = three["denoise"].plus(two["denoise"], -1)
    assert four["denoise"] == three["denoise"].plus(step)
    assert two["decode"] == four["decode"]
    one, pair, all_three = (probed(prober, batch=songs).work["decode"] for songs in (1, 2, 3))
    assert all_three == pair.plus(pair.plus(one, -1))


def test_every_stage_of_a_run_that_fits_says_its_work_and_one_that_does_not_fit_says_none(
    prober: SimulatedProber,
) -> None:
    found = probed(prober)
    assert {name: work.totals for name, work in found.work.items()} == {s.name: s.work for s in found.stages}
    knobs = Knobs(variant=Variant.TURBO, offload=Offload.CPU_DIT, compile=False)
    refused = prober.probe(knobs, Workload(batch=1, duration_s=10.0), GIB)
    assert not refused.work
    assert all(stage.work is msgspec.UNSET for stage in refused.stages)


@pytest.mark.parametrize("name", ["flops", "memory_bytes", "launches", "transferred_bytes"])
@pytest.mark.parametrize(("more", "is_found"), [(1.0, False), (1.015, False), (1.03, True)])
def test_a_stage_that_does_more_work_than_its_record_is_found(
    name: str, more: float, is_found: bool, prober: SimulatedProber
) -> None:
    stage = next(stage for stage in probed(prober).stages if stage.name == "denoise")
    assert isinstance(stage.work, WorkTotals)
    more_work = {name: round(more * getattr(stage.work, name))}
    probe = measured().probes[0]
    cell = GateCell(variant=Variant.TURBO, tier="tier1", state="without_lm", probe=probe, proven_cap_bytes=1)
    grown = msgspec.structs.replace(stage, work=msgspec.structs.replace(stage.work, **more_work))
    assert [found.component for found in work_findings(cell, stage, grown, 0.02)] == [name] * is_found
    assert not list(work_findings(cell, msgspec.structs.replace(stage, work=msgspec.UNSET), grown, 0.02))


def test_one_more_wait_in_every_step_is_found(prober: SimulatedProber, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = denoise_stage.advance

    def waiting(latents: torch.Tensor, *others: Any) -> None:
        advance(latents, *others)
        latents[0, 0, 0].cpu()

    def denoising(by: SimulatedProber) -> MeasuredStage:
        return next(stage for stage in probed(by).stages if stage.name == "denoise")

    before = denoising(prober)
    monkeypatch.setattr(denoise_stage, "advance", waiting)
    after = denoising(SimulatedProber())
    assert isinstance(before.work, WorkTotals)
    cell = GateCell(
        variant=Variant.TURBO, tier="tier1", state="without_lm", probe=measured().probes[0], proven_cap_bytes=1
    )
    assert [found.component for found in work_findings(cell, before, after, 0.02)] == ["waits"]
    older = msgspec.structs.replace(before, work=msgspec.structs.replace(before.work, waits=msgspec.UNSET))
    assert not list(work_findings(cell, older, after, 0.02))


def test_work_of_an_older_record_has_no_waits_and_is_written_as_it_was() -> None:
    written = b'{"flops":1,"memory_bytes":2,"launches":3,"transferred_bytes":4}'
    older = msgspec.json.decode(written, type=WorkTotals)
    assert older.waits is msgspec.UNSET
    assert msgspec.json.encode(older) == written
    newer = msgspec.structs.replace(older, waits=0)
    assert msgspec.json.decode(msgspec.json.encode(newer), type=WorkTotals) == newer


def _kernel(read: int, written: int) -> KernelSums:
    return KernelSums(0, read, written, 1)
