"""How long a song takes on a card: more work takes longer, a faster card is not slower, and the range is told."""

import json

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acestep.checkpoints.build import build
from acestep.checkpoints.lm import build_lm
from acestep.errors import Exit
from acestep.hardware.card_sizes import box_of
from acestep.hardware.detection.families import capability_of
from acestep.knobs import Backend, Knobs, Offload, Variant
from acestep.lm.backends.pt import PtBackend
from acestep.lm.jobs import Planner
from acestep.lm.metadata import Metadata
from acestep.lm.tokenizer import COMPACT, BytePlannerTokenizer
from acestep.memory.placement import Placement
from acestep.request import Request
from acestep.stage import Stage
from acestep.units import GIB
from calibrate.cli import cli as calibrate
from calibrate.probes.simulated.full_size_lm import FirstAllowed
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.probes.simulated.work_counter import work_between
from calibrate.probes.simulated.writing import Counted, CountedWriting
from calibrate.probes.work import KernelSums, Work
from calibrate.timing.cards import card_speed, known_cards
from calibrate.timing.roofline import work_seconds
from calibrate.timing.song import STREAMED, SongTime, SongWork, song_time
from calibrate.workload import Workload
from tests import formula_card
from tests.formula_card import Run
from tests.simulated_card import Card

SUMS = st.builds(KernelSums, *[st.integers(0, 10**13)] * 4)
WORKS = st.builds(
    Work, products=SUMS, convolutions=SUMS, attention=SUMS, others=SUMS, transferred_bytes=st.integers(0, 10**11)
)
CARD = card_speed("RTX 3060")

command = formula_card.command


@given(WORKS, WORKS, st.booleans())
def test_more_work_never_takes_less_time(work: Work, more: Work, overlaps: bool) -> None:
    assert work_seconds(work.plus(more), CARD, overlaps=overlaps) >= work_seconds(work, CARD, overlaps=overlaps)


@given(WORKS, st.sampled_from(["tflops", "memory_gbs", "bus_gbs"]), st.floats(1, 10))
def test_a_faster_card_never_takes_more_time(work: Work, peak: str, times: float) -> None:
    faster = msgspec.structs.replace(CARD, **{peak: getattr(CARD, peak) * times})
    assert work_seconds(work, faster) <= work_seconds(work, CARD)


def test_every_card_has_a_source_and_a_size_it_is_sold_in() -> None:
    names = [card.name for card in known_cards()]
    assert len(names) == len(set(names))
    for card in known_cards():
        assert card.source
        assert box_of(card.name, int(card.vram_gib * GIB)).gib == card.vram_gib
        assert card.compute_capability == capability_of(card.name)


def test_the_work_of_writing_is_what_all_its_steps_take() -> None:
    """Within one step, whose logits are not computed where the grammar leaves one token."""
    model = build_lm("tiny", dtype=torch.bfloat16, materialise="meta", vocab_size=COMPACT.size)
    planner = Planner(BytePlannerTokenizer(COMPACT))
    jobs = planner.compose_jobs(Request(caption="a song", batch=2, seed=1), Metadata(), 4.0)
    card, counted = Card(), Counted()
    backend = PtBackend(model, card.device, chooser=FirstAllowed())
    with card.on():
        before = card.kernels.work.counts
        backend.write(jobs, lambda _step, _most: None)
        computed = work_between(before, card.kernels.work.counts)
        CountedWriting(backend, card.kernels.work, counted).write(jobs, lambda _step, _most: None)
    assert counted.steps == jobs[0].max_tokens
    for name, value in msgspec.structs.asdict(computed.totals).items():
        assert getattr(counted.work.totals, name) == pytest.approx(value, rel=1.5 / counted.steps), name


@pytest.fixture(scope="module")
def prober() -> SimulatedProber:
    return SimulatedProber()


def timed(prober: SimulatedProber, card: str = "RTX 3060", seconds: float = 30.0, **knobs: object) -> SongTime:
    settled = Knobs(**({"variant": Variant.TURBO, "offload": Offload.CPU, "compile": False} | knobs))  # type: ignore[arg-type]
    workload = Workload(batch=1, duration_s=seconds, with_lm=settled.lm is not None, lyric_tokens=44, text_tokens=168)
    found = song_time(card_speed(card), settled, workload, 16 * GIB, prober)
    assert found is not None
    return found


def test_the_whole_is_the_sum_of_the_stages_and_lies_in_its_range(prober: SimulatedProber) -> None:
    found = timed(prober)
    assert found.steps == 8
    assert found.total.likely == pytest.approx(sum(stage.likely for stage in found.stages.values()), abs=0.01)
    for time in (found.total, *found.stages.values()):
        assert 0 < time.least < time.likely < time.most


def test_thinking_takes_longer_than_the_rest_and_less_where_a_step_is_one_launch(prober: SimulatedProber) -> None:
    by_pytorch, by_vllm = (timed(prober, lm="0.6B", backend=backend) for backend in (Backend.PT, Backend.VLLM))
    assert by_vllm.stages["think"].likely < by_pytorch.stages["think"].likely
    assert by_pytorch.stages["think"].likely > sum(
        time.likely for stage, time in by_pytorch.stages.items() if stage != "think"
    )


PARTS_OF_STAGE = {
    Stage.ENCODE: ("text_encoder", "condition_encoder"),
    Stage.DENOISE: ("transformer",),
    Stage.DECODE: ("vae_decoder",),
}


@pytest.mark.parametrize("offload", Offload)
def test_the_bus_is_hidden_behind_computation_only_in_stages_whose_blocks_are_streamed(offload: Offload) -> None:
    components = build("tiny", dtype=torch.bfloat16)
    placement = Placement(components.modules(), components.blocks(), offload, Card().device)
    for stage, parts in PARTS_OF_STAGE.items():
        assert (stage in STREAMED.get(offload, ())) is any(map(placement.streams, parts))


@given(work=WORKS)
def test_a_streamed_stage_takes_as_long_as_the_slower_of_bus_and_computation(work: Work) -> None:
    def seconds(streamed: frozenset[str]) -> dict[str, float]:
        return SongWork(stages={Stage.DENOISE: work}, streamed=streamed, thought_at_once=1).seconds_on(CARD)

    apart, together = (seconds(streamed)[Stage.DENOISE] for streamed in (frozenset(), frozenset({Stage.DENOISE})))
    still = msgspec.structs.replace(work, transferred_bytes=0)
    computing = work_seconds(still, CARD)
    assert together == pytest.approx(max(computing, apart - computing))


def test_songs_that_do_not_fit_take_no_time(prober: SimulatedProber) -> None:
    knobs = Knobs(variant=Variant.TURBO, offload=Offload.CPU, compile=False)
    assert song_time(CARD, knobs, Workload(batch=1, duration_s=30.0), GIB, prober) is None


def test_an_estimate_for_a_card_has_its_budget_and_its_seconds(command: Run) -> None:
    code, out, err = command(calibrate, "estimate", "--card", "rtx 3060", "--duration", 10, "--lm", "none", "--json")
    assert code == Exit.OK, err
    found = json.loads(out)
    assert found["time"]["card"] == "RTX 3060"
    assert found["time"]["evidence"] == "estimated"
    assert found["time"]["total"]["least"] < found["time"]["total"]["most"]
    assert found["time"]["stages"].keys() == {stage["name"] for stage in found["stages"]}


@pytest.mark.parametrize("wrong", [("--card", "gt 710"), ("--card", "rtx 3060", "--vram", 8, "--cap", 4), ()])
def test_an_unknown_card_and_two_caps_are_refused(command: Run, wrong: tuple[object, ...]) -> None:
    code, out, err = command(calibrate, "estimate", *wrong)
    assert (code, out) == (Exit.USAGE, "")
    assert "error" in err
