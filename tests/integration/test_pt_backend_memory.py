"""What writing takes of a card: the simulator's count is an independent meter's, and full-size models fit small cards.

Run with `-s` to see the numbers.
"""

from collections.abc import Callable, Sequence

import pytest
import torch

from acestep.checkpoints.lm import LanguageModel, build_lm, quantize_lm
from acestep.knobs import Knobs, Quantization
from acestep.limits.think_memory import think_bytes
from acestep.lm.backends.pt import PtBackend
from acestep.lm.job import Job
from acestep.lm.tokenizer import FULL_SIZE
from acestep.memory.placement import LANGUAGE_MODEL
from acestep.thinking import LONGEST_PROMPT_TOKENS
from acestep.units import GIB, gib
from calibrate.probes.simulated.book import TraceBook
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.full_size_lm import FirstAllowed, full_size_lm
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.trace import Trace, peak_bytes, stage_usage
from tests.grammars import Alternating, Counted, job_of
from tests.metering import CpuKernels, MeteredCpu
from tests.think_caps import think_cap, trace_thinking

VOCABULARY = 20_000
CODES = range(1_000, VOCABULARY)
AMPERE = (8, 6)

NOTHING_TO_SPARE = 0
"""Free bytes under which prompts are read in the smallest parts, as promises count on."""

LONGEST_SONG = 3_000
"""Codes of ten minutes."""


def _write_in_stages(model: LanguageModel, device: MeteredCpu | SimulatedDevice, jobs: Sequence[Job]) -> int:
    """Reading the prompts with the first tokens is a stage, all later tokens are another; the bytes of the cache."""
    backend = PtBackend(model, device, chooser=FirstAllowed())

    def written(step: int, most: int) -> None:
        if step == 1:
            device.end_stage()
            device.begin_stage("decode")

    device.begin_stage("prefill")
    backend.write(jobs, written)
    device.end_stage()
    return backend.cache_bytes(jobs)


def _counted(jobs: Sequence[Job], quantization: Quantization | None) -> dict[str, int]:
    model = build_lm("tiny", dtype=torch.float32, vocab_size=VOCABULARY)
    if quantization is not None:
        quantize_lm(model, quantization)
    meter = MeteredCpu()
    n_bytes = _write_in_stages(model, meter, jobs)
    return meter.peaks | {"cache": n_bytes}


def _simulated(jobs: Sequence[Job], quantization: Quantization | None) -> dict[str, int]:
    model = build_lm("tiny", dtype=torch.float32, vocab_size=VOCABULARY, materialise="meta")
    if quantization is not None:
        quantize_lm(model, quantization)
    # On the CPU weights are where the work is, so here they are on the card before anything is counted.
    trace, kernels = Trace(), CpuKernels()
    ledger = Ledger(trace, kernels)
    device = SimulatedDevice(ledger, TraceBook(trace, NOTHING_TO_SPARE), dtype=torch.float32, grouped_attention=True)
    with kernels, ledger:
        for weight in model.module.parameters():
            ledger.adopt(weight)
        for constant in model.module.buffers():
            ledger.adopt(constant)
        n_bytes = _write_in_stages(model, device, jobs)
    peaks = {usage.name: usage.peak_bytes - sum(usage.live_at_start.values()) for usage in stage_usage(trace)}
    return peaks | {"cache": n_bytes}


@pytest.mark.parametrize("quantization", [None, Quantization.INT8], ids=["float32", "int8"])
@pytest.mark.parametrize(
    "jobs",
    [
        [job_of(Counted(3, CODES), range(40), max_tokens=30)],
        [job_of(Counted(3, CODES), range(1_300), range(700), max_tokens=900)],
        [job_of(Counted(2 + i, CODES), range(300 + 400 * (i % 2)), range(90), max_tokens=100) for i in range(4)],
        [job_of(Alternating(2, 7, CODES), range(600), seed=seed, max_tokens=20) for seed in range(6)],
    ],
    ids=["one", "guided pair", "four of two lengths", "six alike"],
)
def test_reading_and_writing_take_what_was_counted(jobs: list[Job], quantization: Quantization | None) -> None:
    counted, simulated = _counted(jobs, quantization), _simulated(jobs, quantization)
    assert set(counted) == set(simulated) == {"prefill", "decode", "cache"}
    assert counted["prefill"] > counted["cache"] > 30_000, "the cache is part of what was metered"
    assert counted["decode"] > 10_000
    for stage, n_bytes in counted.items():
        assert simulated[stage] == pytest.approx(n_bytes, rel=1e-3), stage


@pytest.mark.parametrize(
    "jobs",
    [
        [job_of(Counted(5, CODES), range(40), max_tokens=5)],
        [job_of(Counted(1, CODES), range(700), range(30), max_tokens=1)],
        [job_of(Counted(9, CODES), range(900), range(600), seed=seed, max_tokens=9) for seed in range(5)],
        [job_of(Alternating(2, 7, CODES), range(30 + 50 * i), range(9), max_tokens=4) for i in range(3)],
    ],
    ids=["one", "one token", "five guided", "three lengths"],
)
def test_a_rehearsal_takes_what_writing_takes(jobs: list[Job]) -> None:
    model = build_lm("tiny", dtype=torch.bfloat16, vocab_size=VOCABULARY, materialise="meta")

    def peak(act: Callable[[PtBackend], object]) -> int:
        trace, kernels = Trace(), CudaKernels(AMPERE)
        ledger = Ledger(trace, kernels)
        device = SimulatedDevice(ledger, TraceBook(trace, NOTHING_TO_SPARE), dtype=model.dtype, grouped_attention=True)
        with kernels, ledger:
            act(PtBackend(model, device, chooser=FirstAllowed()))
        return peak_bytes(trace)

    written = peak(lambda backend: backend.write(jobs, lambda step, most: None))
    assert peak(lambda backend: backend.rehearse(jobs)) == pytest.approx(written, rel=1e-3)


def _song(unguided: int, seed: int = 0) -> Job:
    """Two steps of the longest song's codes, with room for all of them."""
    codes = Counted(3, range(FULL_SIZE.first_code, FULL_SIZE.first_code + 64_000))
    return job_of(codes, range(LONGEST_PROMPT_TOKENS), range(unguided), seed=seed, max_tokens=LONGEST_SONG)


@pytest.mark.parametrize(
    ("size", "quantization", "limit"),
    [
        ("0.6B", None, 2.8 * GIB),
        ("1.7B", Quantization.INT8, 3.8 * GIB),
        ("4B", Quantization.INT8, 6.6 * GIB),
    ],
)
def test_the_longest_plan_fits_a_small_card(size: str, quantization: Quantization | None, limit: float) -> None:
    model = full_size_lm(f"acestep-5Hz-lm-{size}", quantization)
    # A negative prompt as long as the wishes is the worst case.
    cap = think_cap(model, [_song(LONGEST_PROMPT_TOKENS)], CudaKernels(AMPERE))
    print(f"\n{size} {quantization or 'bf16'}, 600 s, guided, longest prompt: {gib(cap)}")  # noqa: T201
    assert cap <= limit
    predicted = think_bytes(Knobs(lm=size, lm_quantization=quantization), 600.0, itemsize=2)
    assert cap <= predicted <= 1.06 * cap, "what a plan counts on is enough, and hardly more"


@pytest.mark.parametrize("songs", [1, 8])
@pytest.mark.parametrize("prompt", [200, LONGEST_PROMPT_TOKENS])
def test_no_promise_needs_the_kernel_that_reads_int8(prompt: int, songs: int) -> None:
    """Prompts unpack weights with it and without it, and where it does not compile, steps take no more than they do."""
    codes = Counted(3, range(FULL_SIZE.first_code, FULL_SIZE.first_code + 64_000))
    jobs = [job_of(codes, range(prompt), range(60), seed=seed, max_tokens=600) for seed in range(songs)]
    model = full_size_lm("acestep-5Hz-lm-0.6B", Quantization.INT8)
    packed, unpacked = (think_cap(model, jobs, CudaKernels(AMPERE, triton=triton)) for triton in (True, False))
    assert unpacked <= packed


def test_reading_a_long_prompt_takes_hardly_more_than_its_cache() -> None:
    """So no logits of all positions and no scores of the whole prompt: either alone would be 1.3 GiB and more."""
    model, kernels = full_size_lm("acestep-5Hz-lm-0.6B", None), CudaKernels(AMPERE)
    cache = PtBackend(model, MeteredCpu()).cache_bytes([_song(LONGEST_PROMPT_TOKENS)])
    usage = stage_usage(trace_thinking(model, [_song(LONGEST_PROMPT_TOKENS)], kernels))[0]
    assert usage.peak_bytes - usage.live_at_peak[LANGUAGE_MODEL] - cache < 0.05 * GIB


def test_eight_songs_take_eight_caches_and_hardly_more() -> None:
    model, kernels = full_size_lm("acestep-5Hz-lm-0.6B", None), CudaKernels(AMPERE)
    backend = PtBackend(model, MeteredCpu())
    songs = [_song(2_700, seed) for seed in range(8)]
    assert backend.cache_bytes(songs) == 8 * backend.cache_bytes(songs[:1])
    one, eight = (think_cap(model, songs[:count], kernels) for count in (1, 8))
    assert eight - one == pytest.approx(7 * backend.cache_bytes(songs[:1]), rel=0.02)
