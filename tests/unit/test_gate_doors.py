"""What no record holds is judged by runs of the base's code: every task with a source, every format of weights."""

from acestep.knobs import Quantization
from acestep.task import SOURCED
from ci.doors import DOORS


def test_every_task_that_works_on_a_song_is_run() -> None:
    assert {door.workload.task for door in DOORS} >= SOURCED


def test_every_format_is_run_for_the_transformer_and_for_the_language_model() -> None:
    formats = set(Quantization)
    assert {door.knobs.quantization for door in DOORS} >= formats
    assert {door.knobs.lm_quantization for door in DOORS} >= formats


def test_no_two_runs_share_a_name() -> None:
    assert len({door.state for door in DOORS}) == len({door.name for door in DOORS}) == len(DOORS)
