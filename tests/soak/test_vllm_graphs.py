"""vLLM's compiled code and CUDA graphs, which its footprint leaves out, find room beside every promised song."""

from functools import cache

import click
import pytest

from acestep.knobs import Backend, Variant
from acestep.lm.backends.vllm_engine import GRAPHS_FROM_BYTES
from acestep.units import MIB, mib
from calibrate.probes.simulated.prober import SimulatedProber
from ci.cells import GateCell, certified_cells
from ci.promises import TABLE_FILE, stored_promises
from tests.gate_trees import ROOT

pytestmark = pytest.mark.soak

GRAPHS_BYTES = (3134 - 2623) * MIB
"""What 0.6B took of a card besides its tensors when it had compiled and captured its graphs: BENCHMARK.md."""


def with_graphs() -> list[GateCell]:
    """The certified cells of cards that may have as much memory free as vLLM captures graphs from."""
    promised = stored_promises(ROOT / "tiers" / TABLE_FILE)
    assert promised.policy is not None
    cells, _ = certified_cells(promised.table, promised.policy, promised.records)
    return [
        cell
        for cell in cells
        if cell.probe.knobs.backend is Backend.VLLM
        and cell.probe.workload.with_lm
        and cell.probe.cap_bytes >= GRAPHS_FROM_BYTES
    ]


prober = cache(lambda _: SimulatedProber())
"""One for each variant, because the traces of all would fill the memory."""


@pytest.mark.parametrize("variant", Variant)
def test_every_promise_has_room_for_the_graphs(variant: Variant) -> None:
    cells = [cell for cell in with_graphs() if cell.variant == variant]
    assert cells
    spare = []
    for cell in cells:
        needed = prober(variant).smallest_caps(cell.probe.knobs, cell.probe.workload)["total"]
        spare.append(cell.probe.cap_bytes - needed)
    click.echo(f"\n{variant}: {len(cells)} cells, at least {mib(min(spare))} to spare")
    assert min(spare) >= GRAPHS_BYTES
