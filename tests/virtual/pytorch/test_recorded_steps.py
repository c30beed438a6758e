"""Steps of a language model as CUDA graphs: PyTorch captures and replays them, and what they take goes with them."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from acestep.checkpoints.lm import LanguageModel, build_lm, quantize_lm
from acestep.devices.accelerator import CudaDevice
from acestep.devices.base import Recording
from acestep.devices.graphs import RECORDING_BYTES, GraphRecorder, GraphRecording
from acestep.devices.triton_kernel import TritonKernel
from acestep.knobs import Quantization
from acestep.lm import int8_product
from acestep.lm.backends.pt import PtBackend
from acestep.lm.job import Job
from calibrate.probes.simulated.full_size_lm import FirstAllowed
from tests.grammars import Counted, job_of
from tests.virtual.processes import CAPABILITIES
from virtual_card.card import MIB

torch = pytest.importorskip("torch")

CODES = range(150_000, 214_000)
STEPS = 60


def _model(device: CudaDevice, quantization: Quantization | None = None) -> LanguageModel:
    """The 0.6B model on a card."""
    made = build_lm("dummy", "acestep-5Hz-lm-0.6B", dtype=torch.bfloat16, materialise="meta")
    made.module.to_empty(device=device.torch_device)
    made.module.lm_head.weight = made.module.model.embed_tokens.weight
    if quantization is not None:
        quantize_lm(made, quantization)
    return made


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return _model(CudaDevice())


@pytest.fixture
def repeats(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each recording, how often it was repeated."""
    counted: list[int] = []
    record, repeat = GraphRecorder.record, GraphRecording.repeat

    def recorded(self: GraphRecorder, work: object) -> Recording | None:
        made = record(self, work)  # type: ignore[arg-type]
        counted.extend([0] if made is not None else [])
        return made

    def repeated(self: GraphRecording) -> None:
        counted[-1] += 1
        repeat(self)

    monkeypatch.setattr(GraphRecorder, "record", recorded)
    monkeypatch.setattr(GraphRecording, "repeat", repeated)
    return counted


def _jobs(songs: int) -> list[Job]:
    return [job_of(Counted(STEPS, CODES), range(900), range(200), seed=seed, max_tokens=STEPS) for seed in range(songs)]


def _written(model: LanguageModel, device: CudaDevice, songs: int) -> int:
    """Write songs; return the bytes reserved at most beyond what is reserved before."""
    torch.cuda.empty_cache()
    where = device.torch_device
    before = torch.cuda.memory_reserved(where)
    torch.cuda.reset_peak_memory_stats(where)
    backend = PtBackend(model, device, chooser=FirstAllowed())
    backend.write(_jobs(songs), lambda step, most: None)
    return int(torch.cuda.max_memory_reserved(where) - before)


def _require_within_plan(
    model: LanguageModel, device: CudaDevice, songs: int, repeats: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One graph takes all steps, and no more memory than has to be free for it."""
    recorded = _written(model, device, songs)
    assert repeats == [STEPS - 1]
    monkeypatch.setattr(CudaDevice, "can_record", lambda self: False)
    launched = _written(model, device, songs)
    assert repeats == [STEPS - 1]
    print(f"\n{songs} songs: {(recorded - launched) / MIB:.1f} MiB more with a graph")  # noqa: T201
    assert 0 < recorded - launched <= RECORDING_BYTES + device.matrix_workspace


@pytest.mark.parametrize("songs", [1, 8])
def test_one_graph_takes_all_steps_and_what_is_planned(
    songs: int, model: LanguageModel, repeats: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _require_within_plan(model, CudaDevice(), songs, repeats, monkeypatch)


@pytest.fixture(scope="module")
def int8_model() -> LanguageModel:
    return _model(CudaDevice(), Quantization.INT8)


@pytest.mark.parametrize("songs", [1, 8])
def test_int8_weights_that_are_not_unpacked_take_no_more_than_is_planned(
    songs: int, int8_model: LanguageModel, repeats: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _require_within_plan(int8_model, CudaDevice(), songs, repeats, monkeypatch)


def test_without_the_kernel_int8_weights_are_not_recorded_and_nothing_of_the_attempt_stays(
    int8_model: LanguageModel, repeats: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(int8_product, "_kernel", TritonKernel("planning"))
    monkeypatch.setitem(sys.modules, "acestep.lm.int8_kernel", None)
    with caplog.at_level(logging.WARNING):
        tried = _written(int8_model, CudaDevice(), 1)
    assert repeats == []
    assert len(caplog.records) == 1
    monkeypatch.setattr(CudaDevice, "can_record", lambda self: False)
    launched = _written(int8_model, CudaDevice(), 1)
    print(f"\n{(tried - launched) / MIB:.1f} MiB more for the attempt")  # noqa: T201
    assert tried <= launched


def test_a_second_card_records_too(repeats: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The language model's own card, which is not the current one; this one has larger workspaces."""
    device = CudaDevice(index=CAPABILITIES.index((9, 0)), current=False)
    _require_within_plan(_model(device), device, 1, repeats, monkeypatch)


def test_a_repeated_step_launches_next_to_nothing(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the logits of the head, which depend on the grammar, are launched one operation at a time."""
    log, device = Path(os.environ["VIRTUAL_CARD_LAUNCHES"]), CudaDevice()
    launched: list[int] = []
    for able in (True, False):
        monkeypatch.setattr(CudaDevice, "can_record", lambda self, able=able: able)
        before = len(log.read_text().splitlines())
        _written(model, device, 1)
        launched.append(len(log.read_text().splitlines()) - before)
    print(f"\n{launched[0]} launches of {launched[1]} in {STEPS} steps")  # noqa: T201
    assert launched[0] < launched[1] / 8


def test_nothing_of_a_graph_stays(model: LanguageModel, repeats: list[int]) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(), torch.cuda.memory_allocated()
    _written(model, CudaDevice(), 1)
    assert repeats
    torch.cuda.empty_cache()
    assert (torch.cuda.memory_reserved(), torch.cuda.memory_allocated()) == before


def test_without_room_nothing_is_recorded(
    model: LanguageModel, repeats: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = CudaDevice()
    needed = RECORDING_BYTES + device.matrix_workspace
    for free, able in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(CudaDevice, "free_bytes", lambda self, free=free: free)
        assert device.can_record() is able
    _written(model, device, 1)
    assert repeats == []


def test_work_that_cannot_be_recorded_is_said_once_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    device = CudaDevice()
    numbers = torch.ones(8, device="cuda:0")
    with caplog.at_level(logging.WARNING):
        assert device.record(lambda: numbers.sum().item()) is None
    assert sum("recording one failed" in message for message in caplog.messages) == 1
    assert not device.can_record()
    torch.mm(numbers[None], numbers[:, None])
    torch.cuda.synchronize()
    assert CAPABILITIES[0] == torch.cuda.get_device_capability(0)


@pytest.mark.parametrize("failing", [lambda numbers: numbers.sum().item(), lambda numbers: 1 // 0])
def test_after_work_that_cannot_be_recorded_cached_memory_is_given_back_as_before(
    failing: Callable[[Any], object],
) -> None:
    """PyTorch gives cached memory back before it runs out of it, but not while it believes that a graph is captured."""
    device, free = CudaDevice(), torch.cuda.mem_get_info(0)[0]
    numbers = torch.ones(8, device="cuda:0")
    with suppress(ZeroDivisionError):
        device.record(lambda: failing(numbers))
    for share in (0.5, 0.6):
        del_me = torch.empty(int(share * free), dtype=torch.uint8, device="cuda:0")
        del del_me
    torch.cuda.empty_cache()
