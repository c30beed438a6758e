from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from acestep.checkpoints.lm import load_lm
from acestep.devices.cpu import CpuDevice
from acestep.lm.backends.pt import PtBackend
from acestep.lm.backends.vllm import VllmBackend
from acestep.lm.backends.vllm_memory import pool_of
from acestep.lm.jobs import Planner
from acestep.lm.tokenizer import COMPACT, BytePlannerTokenizer
from acestep.request import Request
from acestep.thinking import Sampling, Thinking
from tests.tiny_planner import GREEDY, unheard, write_planner

GUIDED = replace(GREEDY, guidance=2.0)
PLANNER = Planner(BytePlannerTokenizer(COMPACT))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planner(tmp_path_factory.mktemp("planner") / "lm", vocabulary=COMPACT.size)


@pytest.fixture(scope="module")
def pt(folder: Path) -> PtBackend:
    return PtBackend(load_lm(str(folder), dtype=torch.float32), CpuDevice())


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[VllmBackend]:
    backend = VllmBackend(folder, CpuDevice(), pool_of(rows=8, longest=2_048))
    yield backend
    backend.close()


def asked(sampling: Sampling, *, seconds: float = 0, batch: int = 1) -> Request:
    return Request(
        caption="a slow waltz for two music boxes",
        lyrics="[verse]\nround and round",
        duration_s=seconds,
        batch=batch,
        think=True,
        thinking=Thinking(sampling=sampling, longest_s=60),
    )


@pytest.mark.parametrize("sampling", [GREEDY, GUIDED, Sampling()], ids=["likeliest", "guided", "drawn"])
def test_the_plan_of_a_song_is_that_of_pytorch(backend: VllmBackend, pt: PtBackend, sampling: Sampling) -> None:
    request = asked(sampling)
    jobs = PLANNER.plan_jobs(request)
    written = backend.write(jobs, unheard)
    assert written == pt.write(jobs, unheard)
    thought = PLANNER.thought(request, written)
    assert 30 <= thought.bpm <= 300
    assert 10 <= thought.duration_s <= 60
    assert thought.keyscale
    assert thought.timesignature


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("sampling", [GREEDY, GUIDED], ids=["unguided", "guided"])
def test_the_codes_of_songs_of_different_lengths_are_those_of_pytorch(
    backend: VllmBackend, pt: PtBackend, sampling: Sampling, batch: int
) -> None:
    songs = [asked(sampling, seconds=10 + 2 * i) for i in range(batch)]
    jobs = [job for song in songs for job in PLANNER.compose_jobs(song, PLANNER.thought(song, ()), song.duration_s)]
    written = backend.write(jobs, unheard)
    assert written == pt.write(jobs, unheard)
    assert [len(codes) for codes in PLANNER.codes(written)] == [5 * (10 + 2 * i) for i in range(batch)]
