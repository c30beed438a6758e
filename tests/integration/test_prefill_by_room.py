"""Prompts are read in larger parts where memory is to spare: the same numbers, and what fitted still fits."""

import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from acestep.checkpoints.catalog import LM_ARCHITECTURES
from acestep.checkpoints.lm import build_lm
from acestep.devices.cpu import CpuDevice
from acestep.knobs import Offload
from acestep.lm.backends.pt import PtBackend
from acestep.lm.forward import Cache, Decoder, DecoderBlock
from acestep.lm.job import Job
from acestep.lm.prefill import PREFILL_TOKENS, forward_bytes, prefill_tokens
from acestep.memory.placement import LANGUAGE_MODEL, Placement
from acestep.units import GIB, MIB
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.full_size_lm import FirstAllowed, full_size_lm
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.live import LiveBook
from calibrate.probes.simulated.trace import peak_bytes
from tests.grammars import Counted, job_of
from tests.think_caps import think_cap, trace_thinking

AMPERE = (8, 6)
PROMPT = 3_200
SIZES = sorted(LM_ARCHITECTURES)


def _job(prompt: int = PROMPT) -> Job:
    return job_of(Counted(2, range(900, 4_000)), range(prompt), max_tokens=2)


@pytest.mark.parametrize("part", PREFILL_TOKENS)
@torch.no_grad()
def test_parts_of_any_size_give_the_same_states(part: int) -> None:
    model = build_lm("tiny", dtype=torch.float32, vocab_size=900)
    prompts = [range(700), range(100, 700)]
    jobs = [job_of(Counted(2, range(900)), prompt, max_tokens=2) for prompt in prompts]

    def read(at_once: int) -> Tensor:
        cache = Cache(jobs, model.module.config, model.dtype, torch.device("cpu"))
        return Decoder(model.module, CpuDevice(), cache.longest).read(cache, at_once)

    assert torch.allclose(read(part), read(97), atol=1e-5)


@pytest.mark.parametrize("free", [0, 1, 3, 10, 40, 1_000])
def test_the_most_tokens_are_taken_that_leave_as_much_free(free: int) -> None:
    chosen = prefill_tokens(free, lambda tokens: tokens // 256)
    assert chosen == max([t for t in PREFILL_TOKENS if 2 * (t // 256) <= free], default=PREFILL_TOKENS[0])


@pytest.mark.parametrize("lm_id", SIZES)
def test_a_forward_takes_no_more_than_was_counted_on(lm_id: str) -> None:
    model, kernels = full_size_lm(lm_id, None), CudaKernels(AMPERE)
    config, itemsize = model.module.config, 2

    def peak(tokens: int) -> int:
        enough = 0 if tokens == PREFILL_TOKENS[0] else 2 * forward_bytes(config, tokens, PROMPT, itemsize)
        return peak_bytes(trace_thinking(model, [_job()], kernels, enough))

    least = peak(PREFILL_TOKENS[0])
    for tokens in PREFILL_TOKENS[1:]:
        fewer = forward_bytes(config, PREFILL_TOKENS[0], PROMPT, itemsize)
        counted = forward_bytes(config, min(tokens, PROMPT), PROMPT, itemsize)
        grown = peak(tokens) - least
        assert grown <= counted
        assert counted - fewer <= 3 * grown, "so much more is counted on that larger parts are hardly ever taken"


def _written_under(cap: int, lm_id: str, jobs: Sequence[Job]) -> LiveBook:
    """Write on a simulated card that refuses what does not fit under the cap."""
    model, kernels, book = full_size_lm(lm_id, None), CudaKernels(AMPERE), LiveBook(cap)
    ledger = Ledger(book, kernels)
    device = SimulatedDevice(ledger, book, dtype=model.dtype, grouped_attention=True)
    placement = Placement({LANGUAGE_MODEL: model.module}, (), Offload.CPU_DIT, device)
    backend = PtBackend(model, device, use=lambda: placement.use(LANGUAGE_MODEL), chooser=FirstAllowed())
    with kernels, ledger:
        backend.write(jobs, lambda *_: None)
    return book


def test_under_every_cap_that_fits_the_choice_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    lm_id, jobs, parts = SIZES[0], [_job()], list[int]()
    cap = think_cap(full_size_lm(lm_id, None), jobs, CudaKernels(AMPERE))
    embed = Decoder._embed
    monkeypatch.setattr(Decoder, "_embed", lambda self, tokens: parts.append(len(tokens)) or embed(self, tokens))
    chosen = []
    for more in (0, 2 * MIB, 20 * MIB, 64 * MIB, 128 * MIB, 200 * MIB, 300 * MIB, 500 * MIB, GIB):
        parts.clear()
        book = _written_under(cap + more, lm_id, jobs)
        assert book.allocator.peak_reserved <= cap + more
        chosen.append(max(parts))
    assert chosen[0] == PREFILL_TOKENS[0]
    assert chosen == sorted(chosen)
    assert chosen[-1] == PROMPT
    assert len(set(chosen)) >= 3


class RoomyCard(CpuDevice):
    """A card whose memory seems free, and which may refuse it all the same; it counts how often it is tidied."""

    shares_host_memory = False

    def __init__(self, *, grouped: bool = True) -> None:
        super().__init__()
        self.grouped_attention = grouped
        self.rows: list[weakref.ref[Tensor]] = []
        self.alive: list[int] = []

    def free_bytes(self) -> int:
        return 1_000 * GIB

    def empty_cache(self) -> None:
        self.alive.append(sum(rows() is not None for rows in self.rows))


def _parts_and_tokens(card: CpuDevice, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[tuple[int, ...]]]:
    """The parts of a prompt of 700 tokens and the tokens that follow it."""
    parts, embed = list[int](), Decoder._embed

    def counted(self: Decoder, tokens: Sequence[int]) -> Tensor:
        parts.append(len(tokens))
        return embed(self, tokens)

    torch.manual_seed(3)
    model = build_lm("tiny", dtype=torch.float32, vocab_size=900)
    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "_embed", counted)
        written = PtBackend(model, card).write([job_of(Counted(6, range(900)), range(700))], lambda *_: None)
    return [part for part in parts if part > 1], written


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_prompt_is_read_again_in_small_parts_where_memory_runs_out_in_large_ones(
    error: type[RuntimeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [PREFILL_TOKENS[0], 700 - PREFILL_TOKENS[0]]
    assert _parts_and_tokens(RoomyCard(), monkeypatch)[0] == [700]
    parts, expected = _parts_and_tokens(CpuDevice(), monkeypatch)
    assert parts == few
    card, layers, forward = RoomyCard(), list[object](), DecoderBlock.forward

    def refusing(block: DecoderBlock, hidden: Tensor, *rest: Any) -> Tensor:
        layers.append(block)
        if len(hidden) > PREFILL_TOKENS[0]:
            card.rows.append(weakref.ref(hidden))
            if block is not layers[0]:
                raise error("CUDA error: out of memory")
        return forward(block, hidden, *rest)

    monkeypatch.setattr(DecoderBlock, "forward", refusing)
    assert _parts_and_tokens(card, monkeypatch) == ([700, *few], expected)
    assert len(card.rows) == 2
    assert not any(card.alive), "the activations were alive when the cache was emptied"


def test_memory_that_runs_out_in_small_parts_too_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(DecoderBlock, "forward", refusing)
    with pytest.raises(torch.OutOfMemoryError):
        _parts_and_tokens(RoomyCard(), monkeypatch)


def test_parts_are_small_where_attention_is_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores of a part are in memory there, and are not counted."""
    parts, _ = _parts_and_tokens(RoomyCard(grouped=False), monkeypatch)
    assert max(parts) == PREFILL_TOKENS[0]


def test_on_the_cpu_what_is_free_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed must give the same song when other programs have taken memory."""
    parts, embed = list[int](), Decoder._embed
    monkeypatch.setattr(Decoder, "_embed", lambda self, tokens: parts.append(len(tokens)) or embed(self, tokens))
    model = build_lm("tiny", dtype=torch.float32, vocab_size=900)
    for free in (0, 1_000 * GIB):
        monkeypatch.setattr(CpuDevice, "free_bytes", lambda _, free=free: free)
        PtBackend(model, CpuDevice()).write([job_of(Counted(1, range(900)), range(700), max_tokens=1)], lambda *_: None)
    assert parts == [PREFILL_TOKENS[0], 700 - PREFILL_TOKENS[0]] * 2
