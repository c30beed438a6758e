"""The minute before all measuring says whether probes work, and what is wrong where they do not."""

import json
from pathlib import Path

import msgspec
import pytest

from acestep.errors import Exit
from acestep.knobs import Knobs
from acestep.units import GIB
from calibrate.executors.alone import SimulationAlone
from calibrate.probes.base import ProbeResult
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tools import card_smoke
from tools.card_smoke import main


def test_a_cap_that_is_enough_and_one_that_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "simulated", "-o", str(tmp_path / "smoke.json")]) == Exit.OK
    found = json.loads((tmp_path / "smoke.json").read_text(encoding="utf-8"))
    assert [answer["result"]["verdict"] for answer in found] == ["fits", "oom"]
    assert "under 1024 MiB: oom after" in capsys.readouterr().err


def test_without_a_card_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from acestep.errors import NotMeasuredError

    def no_card(device: str) -> SimulationAlone:
        raise NotMeasuredError(f"no card for {device}")

    monkeypatch.setattr(card_smoke, "alone_on", no_card)
    assert main(["-o", str(tmp_path / "smoke.json")]) == Exit.NOT_MEASURED
    assert not (tmp_path / "smoke.json").exists()


@pytest.mark.parametrize(("wrong_at", "verdict"), [(4 * GIB, Verdict.CRASHED), (GIB, Verdict.FITS)])
def test_another_answer_is_told_with_what_it_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong_at: int,
    verdict: Verdict,
) -> None:
    class Wrong(SimulatedProber):
        def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
            result = super().probe(knobs, workload, cap_bytes)
            if cap_bytes != wrong_at:
                return result
            return msgspec.structs.replace(result, verdict=verdict, warnings=("no kernel image is available",))

    monkeypatch.setattr(card_smoke, "alone_on", lambda device: SimulationAlone(Wrong()))
    assert main(["-o", str(tmp_path / "smoke.json")]) == Exit.NOT_MEASURED
    assert "no kernel image is available" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "smoke.json").read_text(encoding="utf-8"))) == 2, "both answers are kept"
