"""Programs on a simulated machine: their card's memory is seen whatever thread takes it, and its limits hold."""

import gc
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from acestep.devices.open import open_here
from acestep.errors import NotMeasuredError
from acestep.knobs import Variant
from acestep.song import Song
from acestep.tiers import load_tiers, tiers_here
from acestep.units import GIB, MIB
from calibrate.probes.simulated.memo import Regions
from ci.scenarios.machine import LIMITS_S, Machine
from ci.scenarios.main_memory import host_bytes
from ci.scenarios.scenario import EntryPoint, Scenario

SCENARIO = Scenario(name="a scenario", entry=EntryPoint.PYTHON, card_gib=8, free_bytes=GIB, requests=(), limited=True)


@pytest.fixture
def machine() -> Machine:
    return Machine(SCENARIO, load_tiers(), Regions())


def test_memory_that_another_thread_takes_is_seen_and_refused(machine: Machine, tmp_path: Path) -> None:
    kept: list[torch.Tensor] = []
    problems: list[str] = []

    def take(n_bytes: int) -> None:
        try:
            kept.append(torch.empty(n_bytes, dtype=torch.uint8, device=open_here()[0].torch_device))
        except torch.OutOfMemoryError as error:
            problems.append(str(error))

    with machine.running(tmp_path):
        for n_bytes in (MIB, 2 * GIB):
            thread = threading.Thread(target=take, args=(n_bytes,))
            thread.start()
            thread.join()
        assert machine.held_bytes == MIB
        kept.clear()
        assert machine.held_bytes == 0
    assert len(problems) == 1


def test_the_card_and_the_table_are_those_of_the_scenario(machine: Machine, tmp_path: Path) -> None:
    usual = load_tiers()
    with machine.running(tmp_path):
        assert open_here()[1] == machine.card
        tiers = tiers_here().variants[Variant.TURBO].tiers
        assert {tier.frontier.longest(2, lm=False) for tier in tiers} == {LIMITS_S[2]}
    assert load_tiers() is usual
    assert open_here()[1] != machine.card


def test_tensors_of_main_memory_are_counted_until_they_are_gone() -> None:
    gc.freeze()
    try:
        kept: list[object] = [torch.empty(MIB, dtype=torch.uint8)]
        before = host_bytes()
        kept.append(torch.empty(MIB, dtype=torch.uint8))
        kept.append((Song(seed=1, audio=np.zeros((2, MIB // 8), np.float32)[:, :8]),))
        gc.collect()
        assert host_bytes() == before + 2 * MIB
        del kept
        assert host_bytes() == before - MIB
    finally:
        gc.unfreeze()


def test_code_without_a_place_that_is_replaced_plays_no_scenario(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("acestep.checkpoints.load.build")
    with pytest.raises(NotMeasuredError, match=r"acestep\.checkpoints\.load\.build"), machine.running(tmp_path):
        pass
