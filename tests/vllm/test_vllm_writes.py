from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from acestep.checkpoints.lm import load_lm
from acestep.devices.cpu import CpuDevice
from acestep.lm.backends.pt import PtBackend
from acestep.lm.backends.vllm import VllmBackend
from acestep.lm.backends.vllm_memory import LEAST_BATCHED_TOKENS, pool_of
from acestep.lm.job import Job
from acestep.thinking import Sampling
from tests.tiny_planner import GREEDY, Fields, prompt, song, unheard, write_planner

GUIDED = replace(GREEDY, guidance=2.0)
DRAWN = Sampling(repetition_penalty=1.1, top_k=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planner(tmp_path_factory.mktemp("planner") / "lm")


@pytest.fixture(scope="module")
def pt(folder: Path) -> PtBackend:
    return PtBackend(load_lm(str(folder), dtype=torch.float32), CpuDevice())


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[VllmBackend]:
    backend = VllmBackend(folder, CpuDevice(), pool_of(rows=8, longest=1_800))
    yield backend
    backend.close()


def songs(batch: int, sampling: Sampling) -> list[Job]:
    """Songs of different lengths behind prompts of different lengths."""
    return [song(length=30 + 40 * i, codes=25 - 6 * i, sampling=sampling, seed=i, unguided=90) for i in range(batch)]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("sampling", [GREEDY, GUIDED], ids=["unguided", "guided"])
def test_the_likeliest_codes_are_those_of_pytorch(
    backend: VllmBackend, pt: PtBackend, sampling: Sampling, batch: int
) -> None:
    jobs = songs(batch, sampling)
    assert backend.write(jobs, unheard) == pt.write(jobs, unheard)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("guidance", [1.0, 2.5], ids=["unguided", "guided"])
def test_drawn_codes_are_those_of_pytorch(backend: VllmBackend, pt: PtBackend, guidance: float, batch: int) -> None:
    jobs = songs(batch, replace(DRAWN, guidance=guidance))
    assert backend.write(jobs, unheard) == pt.write(jobs, unheard)


@pytest.mark.parametrize("sampling", [GREEDY, GUIDED, Sampling()], ids=["likeliest", "guided", "drawn"])
def test_metadata_is_that_of_pytorch(backend: VllmBackend, pt: PtBackend, sampling: Sampling) -> None:
    jobs = [
        Job(
            prompt=prompt(50 + i),
            unguided=prompt(70, salt=1) if sampling.guidance > 1 else (),
            grammar=Fields(),
            sampling=sampling,
            seed=i,
            max_tokens=40,
        )
        for i in range(3)
    ]
    assert backend.write(jobs, unheard) == pt.write(jobs, unheard)


def test_songs_of_every_kind_share_a_batch(backend: VllmBackend, pt: PtBackend) -> None:
    jobs = [
        song(length=90, codes=12),
        song(length=64, codes=30, sampling=GUIDED),
        song(length=32, codes=8, sampling=DRAWN, seed=5, unguided=333),
        song(length=31, codes=40, sampling=DRAWN, max_tokens=9),
    ]
    assert backend.write(jobs, unheard) == pt.write(jobs, unheard)


def test_a_song_is_the_same_alone_and_in_a_batch(backend: VllmBackend) -> None:
    jobs = songs(4, DRAWN)
    alone = [backend.write([job], unheard)[0] for job in jobs]
    assert backend.write(jobs, unheard) == alone


def test_a_pair_of_very_unequal_prompts_writes_together(backend: VllmBackend, pt: PtBackend) -> None:
    jobs = [song(length=LEAST_BATCHED_TOKENS + 300, codes=10, sampling=DRAWN, unguided=12), *songs(2, GUIDED)]
    assert backend.write(jobs, unheard) == pt.write(jobs, unheard)


def test_rows_that_come_apart_start_again_from_what_both_wrote(
    backend: VllmBackend, pt: PtBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(backend, "_read", lambda jobs: None)
    begin = backend._begin
    monkeypatch.setattr(backend, "_begin", lambda number, draft: (begun.append(number), begin(number, draft)))
    # Without having been read before, the short prompt takes one step and the long one behind it two.
    jobs = [song(length=40, codes=10, sampling=DRAWN, unguided=LEAST_BATCHED_TOKENS + 400), *songs(2, GUIDED)]
    assert backend.write(jobs, unheard) == pt.write(jobs, unheard)
    assert len(begun) > len(jobs)


def test_progress_counts_the_steps_of_the_longest_song(backend: VllmBackend) -> None:
    heard: list[tuple[int, int]] = []
    backend.write(songs(2, GREEDY), lambda *step: heard.append(step))
    assert heard == [(step, 26) for step in range(1, 27)]
