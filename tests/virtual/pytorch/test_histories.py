"""The model of the allocator does what PyTorch's allocator does, in any program: every segment and every address."""

from pathlib import Path

import pytest

from calibrate.probes.simulated.history import replay_history
from calibrate.probes.simulated.recorded import load_history
from tests.virtual.processes import SHARED, printed

PROGRAM = """
import random
from pathlib import Path

import torch

from calibrate.probes.simulated.recorded import history_of, store_history

torch.cuda.set_per_process_memory_fraction({cap} / torch.cuda.get_device_properties(0).total_memory, 0)
for seed in range({seeds}):
    chosen, blocks, refused = random.Random(seed), [], 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(0)
    torch.cuda.memory._record_memory_history(max_entries=100_000, device=0)
    for _ in range(600):
        if blocks and chosen.random() < 0.45:
            blocks.pop(chosen.randrange(len(blocks)))
        else:
            size = int(2 ** chosen.uniform(8, chosen.choice([16, 21, 24, 28])))
            try:
                blocks.append(torch.empty(size, dtype=torch.uint8, device="cuda:0"))
            except torch.OutOfMemoryError:
                refused += 1
                blocks = blocks[::3]
        if chosen.random() < 0.02:
            torch.cuda.empty_cache()
    store_history(history_of(torch.cuda.memory._snapshot(0)), Path({folder!r}) / f"{{seed}}.gz")
    torch.cuda.memory._record_memory_history(enabled=None, device=0)
    print(torch.cuda.memory_stats(0)["reserved_bytes.all.peak"], refused)
    blocks.clear()
"""
"""Allocates and frees at random under a cap; for each seed it writes the history, and prints the peak that was reserved
and how many requests were refused.
"""

SEEDS = 6
CAP = 300 << 20


@pytest.mark.parametrize("settings", ["", "expandable_segments:True"], ids=["ordinary segments", "expandable segments"])
def test_random_programs_are_replayed_to_the_byte(settings: str, tmp_path: Path) -> None:
    assert SHARED.machine is not None
    program = PROGRAM.format(seeds=SEEDS, cap=CAP, folder=str(tmp_path))
    told = printed(SHARED.machine, program, PYTORCH_ALLOC_CONF=settings).splitlines()
    assert len(told) == SEEDS
    for seed, (peak, refused) in enumerate(map(str.split, told)):
        replayed = replay_history(load_history(tmp_path / f"{seed}.gz"))
        assert replayed.agrees, (seed, replayed.difference)
        assert replayed.peak_reserved == int(peak) <= CAP
        assert replayed.allocations > 200
        assert int(refused) > 0, "no request met the cap"
