"""For every way a probe's child can end, the prober names it, in time, and leaves no process and no memory on the card.

Real processes through the real protocol; only the card and the model are simulated.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
import torch

from acestep.errors import NotMeasuredError
from acestep.knobs import Knobs, Offload, Quantization
from acestep.units import GIB, MIB
from calibrate.probes import cuda
from calibrate.probes.base import CapMethod, ProbeResult
from calibrate.probes.child import Patience
from calibrate.probes.nvml import Unwatched
from calibrate.record.measurement import RecordedProbe
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.faulty_card import SCRIPT, FakeCard, FaultyProber, living
from tests.faulty_worker import CONTEXT_GROWTH

KNOBS, SONG = Knobs(), Workload(batch=1, duration_s=60)
IMPATIENT = Patience(wall_s=20, silence_s=0.5)
HURRIED = Patience(wall_s=0.5, silence_s=20)


@pytest.fixture
def probers() -> Iterator[list[FaultyProber]]:
    """Probers of a test: when it ends they are closed, and nothing of theirs may be alive or on the card."""
    made: list[FaultyProber] = []
    yield made
    for prober in made:
        prober.gauge.lost = False
        prober.gauge.others = {1: GIB}
        prober.gauge.hidden_bytes = 0
        prober.close()
        assert living(prober.token) == {}
        assert prober.gauge.read().used_bytes == GIB


def ask(probers: list[FaultyProber], fault: str, patience: Patience | None = None) -> ProbeResult:
    prober = FaultyProber(fault, patience=patience) if patience else FaultyProber(fault)
    probers.append(prober)
    result = prober.probe(KNOBS, SONG, 4 * GIB)
    if result.verdict not in (Verdict.FITS, Verdict.DEGRADED, Verdict.OOM):
        assert living(prober.token) == {}, "who ended badly is gone before the verdict is told"
    return result


@pytest.mark.parametrize(
    ("fault", "verdict", "words"),
    [
        ("fits", Verdict.FITS, "child"),
        ("floods", Verdict.FITS, "child"),
        ("writes-everywhere", Verdict.FITS, "child"),
        ("decodes-on-the-processor", Verdict.DEGRADED, "child"),
        ("sigsegv", Verdict.CRASHED, "killed by SIGSEGV"),
        ("sigkill", Verdict.CRASHED, "killed by SIGKILL"),
        ("dies-while-loading", Verdict.CRASHED, "killed by SIGKILL"),
        ("exits", Verdict.CRASHED, "ended with code 0 and no answer"),
        ("leaves-a-daemon", Verdict.CRASHED, "ended with code 3"),
        ("stops-in-mid-sentence", Verdict.CRASHED, "ended with code 0 and no answer"),
        ("says-nan", Verdict.CRASHED, "what no message is"),
        ("says-less-than-nothing", Verdict.CRASHED, "what no message is"),
        ("says-too-much", Verdict.CRASHED, "lucky"),
        ("never-ends-its-line", Verdict.CRASHED, "more than any message"),
        ("answers-another-question", Verdict.CRASHED, "question 7 instead of 1"),
        ("speaks-out-of-turn", Verdict.CRASHED, "Filled out of turn"),
        ("holds-more-than-its-cap", Verdict.CRASHED, "under a cap of"),
        ("hangs-up", Verdict.CRASHED, "no answer"),
        ("loses-the-driver", Verdict.CRASHED, "unspecified launch failure"),
        ("fills-the-disk", Verdict.CRASHED, "No space left on device"),
        ("sings-of-memory", Verdict.CRASHED, "too long"),
        ("aborts-without-memory", Verdict.OOM, "killed by SIGABRT"),
    ],
)
def test_every_fault_has_its_verdict_and_says_why(
    probers: list[FaultyProber], fault: str, verdict: Verdict, words: str
) -> None:
    result = ask(probers, fault)
    assert (result.verdict, result.cap_bytes) == (verdict, 4 * GIB)
    assert words in " ".join(result.warnings)


@pytest.mark.parametrize(
    ("fault", "patience", "words"),
    [
        ("hangs", IMPATIENT, "no sign of life for 0.5 s"),
        ("hangs-deaf", IMPATIENT, "no sign of life for 0.5 s"),
        ("hangs-in-a-grandchild", IMPATIENT, "no sign of life for 0.5 s"),
        ("hangs-in-mid-sentence", IMPATIENT, "no sign of life for 0.5 s"),
        ("chatters-forever", HURRIED, "no answer within 0.5 s"),
        ("floods-forever", HURRIED, "no answer within 0.5 s"),
    ],
)
def test_a_child_that_never_answers_is_ended_in_time(
    probers: list[FaultyProber], fault: str, patience: Patience, words: str
) -> None:
    started = time.monotonic()
    result = ask(probers, fault, patience)
    assert result.verdict is Verdict.TIMEOUT
    assert words in result.warnings[0]
    assert time.monotonic() - started < 15


def test_a_model_stays_loaded_until_it_is_another_one(probers: list[FaultyProber]) -> None:
    prober = FaultyProber()
    probers.append(prober)
    short, long = SONG, Workload(batch=1, duration_s=600)
    placed, others = Knobs(offload=Offload.CPU), Knobs(quantization=Quantization.INT8)
    asked = [(KNOBS, short), (KNOBS, long), (placed, short), (KNOBS, short), (others, short)]
    results = [prober.probe(knobs, workload, 4 * GIB) for knobs, workload in asked]
    assert [result.verdict for result in results] == [Verdict.FITS, Verdict.OOM, *[Verdict.FITS] * 3]
    first, _, elsewhere, again, other = (result.warnings[0] for result in results)
    assert first == elsewhere == again != other
    assert results[1].stages[-1].peak_reserved_bytes <= 4 * GIB


def test_a_certificate_runs_the_full_request(probers: list[FaultyProber]) -> None:
    prober = FaultyProber()
    probers.append(prober)
    probe, certificate = prober.probe(KNOBS, SONG, 4 * GIB), prober.certify(KNOBS, SONG, 4 * GIB)
    assert certificate.peak_reserved_bytes == probe.peak_reserved_bytes + MIB


def test_a_child_that_kept_something_is_not_asked_again(probers: list[FaultyProber]) -> None:
    prober = FaultyProber("leaks")
    probers.append(prober)
    first, second = (prober.probe(KNOBS, SONG, 4 * GIB) for _ in range(2))
    assert first.verdict is second.verdict is Verdict.FITS
    assert first.warnings[0] != second.warnings[0]


def test_after_a_crash_the_next_probe_has_a_child_of_its_own(probers: list[FaultyProber]) -> None:
    prober = FaultyProber("sigsegv")
    probers.append(prober)
    assert prober.probe(KNOBS, SONG, 4 * GIB).verdict is Verdict.CRASHED
    prober.fault = "fits"
    assert prober.probe(KNOBS, SONG, 4 * GIB).verdict is Verdict.FITS


def test_an_extra_answer_is_not_used_for_the_next_question(probers: list[FaultyProber]) -> None:
    prober = FaultyProber("answers-twice")
    probers.append(prober)
    first, second, third = (prober.probe(KNOBS, SONG, 4 * GIB) for _ in range(3))
    assert (first.verdict, second.verdict, third.verdict) == (Verdict.FITS, Verdict.CRASHED, Verdict.FITS)
    assert "question 1 instead of 2" in second.warnings[0]


def test_a_child_that_refuses_is_no_answer(probers: list[FaultyProber]) -> None:
    with pytest.raises(NotMeasuredError, match="no card here"):
        ask(probers, "refuses")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a card")
def test_without_cuda_the_real_child_refuses(probers: list[FaultyProber]) -> None:
    prober = FaultyProber("tiny")
    probers.append(prober)
    prober.bench = msgspec.structs.replace(prober.bench, worker=cuda.PROBE_WORKER, loading=cuda.LOADING_PROBE)
    with pytest.raises(NotMeasuredError, match="no CUDA card it can use"):
        prober.probe(KNOBS, SONG, 4 * GIB)


def run_beside(probers: list[FaultyProber], happens: Callable[[FakeCard], None], fault: str = "hangs") -> ProbeResult:
    """The result of a probe in the middle of which something happens to the card."""
    prober = FaultyProber(fault)
    probers.append(prober)
    prober.gauge.mid_run = happens
    return prober.probe(KNOBS, SONG, 4 * GIB)


def arrive(card: FakeCard) -> None:
    card.others = card.others | {4242: GIB}


def grow(card: FakeCard) -> None:
    card.others = {1: 2 * GIB}


def hide(card: FakeCard) -> None:
    card.hidden_bytes = GIB


def vanish(card: FakeCard) -> None:
    card.lost = True


@pytest.mark.parametrize(
    ("happens", "verdict", "words"),
    [
        (arrive, Verdict.TAINTED, "process 4242 came on the card and took 1024 MiB"),
        (grow, Verdict.TAINTED, "process 1 took 1024 MiB more"),
        (hide, Verdict.TAINTED, "1024 MiB of the card were taken by a process that the driver does not list"),
        (vanish, Verdict.CRASHED, "GPU is lost"),
    ],
)
def test_a_change_of_the_card_ends_the_probe(
    probers: list[FaultyProber], happens: Callable[[FakeCard], None], verdict: Verdict, words: str
) -> None:
    result = run_beside(probers, happens)
    assert result.verdict is verdict
    assert words in result.warnings[0]
    assert living(probers[0].token) == {}


def test_an_unwatched_card_is_measured_with_a_remark(probers: list[FaultyProber]) -> None:
    prober = FaultyProber()
    probers.append(prober)
    prober.bench = msgspec.structs.replace(prober.bench, gauge=Unwatched())
    result = prober.probe(KNOBS, SONG, 4 * GIB)
    assert (result.verdict, result.warnings[-1]) == (Verdict.FITS, cuda.UNWATCHED)
    assert not prober.conditions.watched


def test_another_process_that_ends_does_not_taint(probers: list[FaultyProber]) -> None:
    assert run_beside(probers, lambda card: card.others.clear(), "floods").verdict is Verdict.FITS


def test_a_card_is_not_used_until_it_is_as_it_was_found(probers: list[FaultyProber]) -> None:
    assert run_beside(probers, arrive).verdict is Verdict.TAINTED
    prober = probers[0]
    prober.fault = "fits"
    again = prober.probe(KNOBS, SONG, 4 * GIB)
    assert again.verdict is Verdict.TAINTED
    assert "1.00 GiB of the card are in use that were free" in again.warnings[0]
    prober.gauge.others.pop(4242)
    assert prober.probe(KNOBS, SONG, 4 * GIB).verdict is Verdict.FITS


def test_the_time_that_the_card_takes_to_come_back_is_measured(probers: list[FaultyProber]) -> None:
    prober = FaultyProber("sigkill")
    probers.append(prober)
    prober.gauge.lingering_s = 0.2
    assert prober.probe(KNOBS, SONG, 4 * GIB).verdict is Verdict.CRASHED
    assert prober.conditions.returned_s > 0.05


@pytest.mark.parametrize(("shifted", "discreet"), [(True, False), (False, True), (True, True)])
def test_our_own_children_are_known_in_containers_and_without_shares(
    probers: list[FaultyProber], shifted: bool, discreet: bool
) -> None:
    def watched(fault: str, happens: Callable[[FakeCard], None]) -> Verdict:
        prober = FaultyProber(fault)
        probers.append(prober)
        prober.gauge.shifted, prober.gauge.discreet, prober.gauge.mid_run = shifted, discreet, happens
        return prober.probe(KNOBS, SONG, 4 * GIB).verdict

    assert watched("naps", lambda card: None) is Verdict.FITS
    assert watched("hangs", arrive) is Verdict.TAINTED
    assert watched("naps", hide) is Verdict.TAINTED


@pytest.mark.parametrize("method", [CapMethod.FRACTION, CapMethod.BALLAST])
def test_a_context_beyond_its_share_is_charged_to_the_budget(probers: list[FaultyProber], method: CapMethod) -> None:
    prober = FaultyProber(method=method)
    probers.append(prober)
    prober.gauge.context_bytes = GIB // 2 + 256 * MIB
    result = prober.probe(KNOBS, SONG, 4 * GIB)
    assert f"cap {4 * GIB - 256 * MIB}" in result.warnings
    assert (result.cap_bytes, result.withheld_bytes) == (4 * GIB, 256 * MIB)
    assert RecordedProbe.of(KNOBS, SONG, result, timed=True).allocator_bytes == 4 * GIB - 256 * MIB
    assert prober.conditions.context_bytes == prober.gauge.context_bytes
    assert prober.conditions.foreign_bytes == GIB
    assert prober.conditions.allocator == "expandable_segments:False"


def test_a_context_that_fills_the_budget_leaves_no_room_to_run(probers: list[FaultyProber]) -> None:
    prober = FaultyProber()
    probers.append(prober)
    prober.gauge.context_bytes = 5 * GIB
    result = prober.probe(KNOBS, SONG, 4 * GIB)
    assert (result.verdict, result.stages, result.withheld_bytes) == (Verdict.OOM, (), 4 * GIB)
    assert "context" in result.warnings[0]


def test_memory_taken_outside_the_allocator_is_charged_to_the_stage_that_took_it(probers: list[FaultyProber]) -> None:
    result = ask(probers, "grows-outside")
    assert result.verdict is Verdict.OOM
    assert result.stages[-1].name == "denoise"
    assert "denoise took 100 MiB beside the allocator" in result.warnings[0]
    assert (result.cap_bytes, result.withheld_bytes) == (4 * GIB, CONTEXT_GROWTH)
    recorded = RecordedProbe.of(KNOBS, SONG, result, timed=True)
    assert recorded.allocator_bytes < result.peak_reserved_bytes, "what the allocator had fitted"


def test_kernels_that_a_probe_loaded_are_charged_to_the_next_one_too(probers: list[FaultyProber]) -> None:
    prober = FaultyProber("loads-kernels")
    probers.append(prober)
    caps = [prober.probe(KNOBS, SONG, 4 * GIB).warnings[1] for _ in range(3)]
    assert caps == [f"cap {4 * GIB}", *[f"cap {4 * GIB - CONTEXT_GROWTH}"] * 2]


def test_a_card_without_room_for_the_cap_is_not_asked(probers: list[FaultyProber]) -> None:
    prober = FaultyProber()
    probers.append(prober)
    with pytest.raises(NotMeasuredError, match=r"23.00 GiB of 24.00 GiB free"):
        prober.probe(KNOBS, SONG, 23 * GIB)
    assert living(prober.token) == {}


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_prober_that_is_ended_takes_its_family_along(end: signal.Signals) -> None:
    code = (
        "from tests.faulty_card import *; from calibrate.workload import Workload;"
        " prober = FaultyProber('hangs-in-a-grandchild');"
        " print(prober.token, flush=True); prober.probe(Knobs(), Workload(batch=1, duration_s=60), GIB)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=SCRIPT.parents[1], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        token = parent.stdout.readline().decode().strip()
        assert until(lambda: any("time.sleep" in words for words in living(token).values()))
        parent.send_signal(end)
    assert until(lambda: not living(token))


def until(happens: Callable[[], bool]) -> bool:
    """Whether something happens within ten seconds."""
    deadline = time.monotonic() + 10
    while not happens() and time.monotonic() < deadline:
        time.sleep(0.05)
    return happens()
