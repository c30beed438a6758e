"""The simulation against PyTorch's CUDA build: one boundary of the shipped record, to the byte."""

import json
from pathlib import Path

import msgspec
import pytest

from acestep.errors import Exit
from acestep.units import MIB
from calibrate.campaign.beside import read_runs
from calibrate.files import pretty_json
from calibrate.record.measurement import load_measurement
from tests.virtual.processes import ROOT, running
from tests.virtual.programs.test_commands import ran
from virtual_card.card import GIB, VirtualCard

BATCH = 1

pytestmark = pytest.mark.timeout(600)


def test_a_boundary_of_the_shipped_record_is_the_card_s_and_every_peak_is_simulated(tmp_path: Path) -> None:
    """Under the budget of the smallest card, where a song fits and one that is a little longer does not."""
    shipped = load_measurement(ROOT / "tiers" / "measurements" / "simulated-turbo.json")
    [one] = [
        certificate
        for certificate in shipped.certificates
        if certificate.batch == BATCH
        and certificate.knobs.lm is None
        and certificate.cap_bytes == min(probe.cap_bytes for probe in shipped.probes)
        and certificate.fits is not None
        and certificate.fails is not None
    ][:1]
    assert one.fits is not None
    assert one.fails is not None
    sides = (shipped.probes[one.fits], shipped.probes[one.fails])
    certificate = msgspec.structs.replace(one, fits=0, fails=1)
    record, answers = tmp_path / "simulated.json", tmp_path / "answers" / "card.json"
    answers.parent.mkdir()
    only = msgspec.structs.replace(shipped, probes=sides, certificates=(certificate,), memory_model=())
    record.write_text(pretty_json(only.sealed()), encoding="utf-8")
    with running(cards=(VirtualCard(board_bytes=8 * GIB),)) as machine:
        done = ran(
            machine, "calibrate", "reality", record, "--ask", answers, "--cap-method", "ballast", "--anew", "--json"
        )
    assert done.returncode == Exit.OK, done.stderr
    [total] = json.loads(done.stdout)
    assert (total["boundaries"], total["equal"], total["runs"]) == (1, 1, 2)
    apart = {stage: peaks for run in read_runs(answers.parent) for stage, peaks in run.apart.items()}
    assert set(apart) == {"encode", "denoise", "decode"}
    for allocated, reserved in apart.values():
        assert abs(allocated) <= MIB
        assert abs(reserved) <= 2 * MIB
