"""What no record holds is judged by runs of the base's code: every task with a source, every format of weights."""

from acestep.checkpoints.tokenizer import ByteTokenizer
from acestep.knobs import Quantization
from acestep.task import SOURCED
from calibrate.probes.prompt import probe_request
from ci.doors import DOORS, drawn_doors


def test_every_task_that_works_on_a_song_is_run() -> None:
    assert {door.workload.task for door in DOORS} >= SOURCED


def test_every_format_is_run_for_the_transformer_and_for_the_language_model() -> None:
    formats = set(Quantization)
    assert {door.knobs.quantization for door in DOORS} >= formats
    assert {door.knobs.lm_quantization for door in DOORS} >= formats


def test_no_two_runs_share_a_name() -> None:
    assert len({door.state for door in DOORS}) == len({door.name for door in DOORS}) == len(DOORS)


def test_a_seed_draws_runs_that_can_be_asked_for_and_the_same_ones_again() -> None:
    drawn = {seed: drawn_doors(seed) for seed in range(20)}
    assert len(set(drawn.values())) > 10
    for seed, doors in drawn.items():
        assert doors == drawn_doors(seed)
        for door in doors:
            assert door.workload.batch * door.workload.duration_s <= 600
            assert probe_request(door.workload, ByteTokenizer()).batch == door.workload.batch
