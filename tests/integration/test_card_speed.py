"""The comparison with the library measures what it reports; on the CPU, with toy weights and without a card."""

import json
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import torch

from acestep.errors import Exit
from acestep.request import Request
from acestep.units import GIB
from tools import card_speed
from tools.card_speed import Speeds, compared, main, measure, wanted_cases
from tools.speed_bench import Ceilings, SpeedBench, SpeedPoint, SpeedSide, WeightsPlace

CEILINGS = Ceilings(flops_per_s=1e12, bytes_per_s=1e12)
NOTHING = Speeds(command="", card="cpu", torch="", diffusers="", model="tiny", ceilings=CEILINGS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here, which has more points")
def test_both_sides_are_measured_once_and_written_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["-o", str(tmp_path / "speed.json"), "--model", "tiny", "--durations", "1", "--batches", "2"]
    main([*asked, "--rounds", "1"])
    first = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert "--model tiny --durations 1 --batches 2" in first["command"]
    assert first["card"] == "cpu"
    ours, library = first["points"]
    assert (ours["side"], library["side"]) == ("ours", "library")
    assert ours["flops"] == library["flops"] > 0
    for point in (ours, library):
        assert point["realtime_factor"] == pytest.approx(2 / point["seconds"])
        assert 0 < point["floor_share"] < 1
        assert point["peak_reserved_bytes"] == 0, "the processor keeps no such count"
    assert "times as fast as the library" in capsys.readouterr().out
    monkeypatch.setattr(SpeedBench, "point", lambda *_: pytest.fail("measured a second time"))
    main([*asked, "--rounds", "1", "--resume"])
    assert json.loads((tmp_path / "speed.json").read_text(encoding="utf-8")) == first
    (tmp_path / "speed.json").write_text(json.dumps(first | {"card": "another"}), encoding="utf-8")
    with pytest.raises(SystemExit, match="measured on another"):
        main([*asked, "--resume"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_without_a_card_nothing_of_full_size_is_compared(tmp_path: Path) -> None:
    assert main(["-o", str(tmp_path / "speed.json")]) == Exit.NOT_MEASURED
    assert not (tmp_path / "speed.json").exists()


def test_every_comparison_is_asked_of_both_sides_and_the_small_card_of_ours() -> None:
    points = list(wanted_cases([30.0, 600.0], [1, 4], on_card=True))
    assert len(points) == 2 * 2 * 2 * 2 + 1
    pairs = {(p.place, p.batch, p.duration_s) for p in points if p.side is SpeedSide.LIBRARY}
    assert pairs == {
        (p.place, p.batch, p.duration_s) for p in points if p.side is SpeedSide.OURS and p.place != WeightsPlace.SMALL
    }
    assert points[-1] == SpeedPoint(side=SpeedSide.OURS, place=WeightsPlace.SMALL, batch=1, duration_s=600.0)


def test_out_of_memory_is_a_point_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = SpeedBench("tiny", rounds=1)

    def timed(side: SpeedSide, place: WeightsPlace, request: Request) -> tuple[float, int]:
        if side is SpeedSide.LIBRARY:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.20 GiB.\nmore")
        return 2.0, GIB

    monkeypatch.setattr(bench, "_timed", timed)
    monkeypatch.setattr(bench, "_work", lambda request: (10**12, 10**9))
    kept: list[int] = []
    asked = list(wanted_cases([60.0], [1, 4], on_card=False))
    found = measure(bench, asked, NOTHING, lambda speeds: kept.append(len(speeds.points)))
    assert kept == [1, 2, 3, 4]
    assert [bool(point.problem) for point in found.points] == [False, True, False, True]
    assert [point.realtime_factor for point in found.points[::2]] == [30.0, 120.0]
    assert found.points[0].floor_share == 0.5
    assert compared(found)[0].endswith("the library: CUDA out of memory. Tried to allocate 7.20 GiB.")


@pytest.mark.parametrize("ours", [False, True])
def test_the_library_has_the_attention_that_our_device_switches_off(
    ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    pipe = SimpleNamespace(remove_all_hooks=lambda: None, to=lambda device: None)
    monkeypatch.setattr(SpeedBench, "_library_s", (None, pipe))
    bench = SpeedBench("tiny", rounds=1)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(ours)
    try:
        with suppress(torch.OutOfMemoryError), bench._library(WeightsPlace.RESIDENT):
            seen.append(torch.backends.cuda.cudnn_sdp_enabled())
            raise torch.OutOfMemoryError
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
    assert seen == [True, ours], "on while the library runs, then as it was, however the run ended"


def test_a_comparison_says_how_much_faster_at_how_much_of_the_memory() -> None:
    ours = SpeedPoint(
        side=SpeedSide.OURS,
        place=WeightsPlace.RESIDENT,
        batch=1,
        duration_s=600.0,
        seconds=10.0,
        peak_reserved_bytes=3 * GIB,
        realtime_factor=60.0,
        floor_share=0.4,
    )
    theirs = msgspec.structs.replace(ours, side=SpeedSide.LIBRARY, seconds=25.0, peak_reserved_bytes=12 * GIB)
    [line] = compared(msgspec.structs.replace(NOTHING, points=(ours, theirs)))
    assert "60.0 times real time, 40% of the floor's rate; 2.50 times as fast" in line
    assert line.endswith("at 25% of its memory")


def test_the_ceilings_are_those_of_this_device() -> None:
    found = SpeedBench("tiny", rounds=1).ceilings()
    assert 1e8 < found.flops_per_s < 1e16
    assert 1e7 < found.bytes_per_s < 1e14
    assert card_speed.LYRICS.count("[verse") == 12
