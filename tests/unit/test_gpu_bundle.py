"""The bundle carries what is missing and nothing else, and its runner makes one result of any number of pieces."""

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.console import run
from acestep.errors import Exit
from acestep.hardware import Card, CardKind
from acestep.units import GIB
from calibrate.cli import cli
from calibrate.journal import journal_path
from calibrate.probers import identity_of
from tools import gpu_bundle, gpu_run
from tools.gpu_bundle import (
    measured_plan,
    package_sizes,
    pins,
    present_in,
    simulated_plan,
    sources,
    told_sizes,
    wanted_by,
    write_bundle,
)

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

SHELF = {
    "song": ["choir>=2", "torch>=2.11", "voice[high]", "old-sound; python_version < '3.12'"],
    "choir": ["song", "Paper_Music"],
    "voice": ["tenor; extra == 'high'", "bass; extra == 'low'"],
    "paper-music": [],
    "old-sound": [],
    "tenor": [],
    "gradio": ["paper-music"],
}


def carried(wanted: Sequence[str], python: str = "3.12", present: Mapping[str, str] | None = None) -> list[str]:
    def needs(name: str) -> list[str]:
        if name not in SHELF:
            raise LookupError(name)
        return SHELF[name]

    return list(pins(wanted, python, present or {}, needs, lambda name: "2.5+cpu"))


def test_everything_needed_is_carried_in_the_release_that_is_here() -> None:
    assert carried(["song"]) == ["choir==2.5", "paper-music==2.5", "song==2.5", "tenor==2.5", "voice==2.5"]


def test_pytorch_and_the_web_ui_stay_where_they_are() -> None:
    assert carried(["torch>=2", "gradio>=6", "ruff", "playwright"]) == []


def test_another_python_needs_other_things() -> None:
    assert "old-sound==2.5" in carried(["song"], "3.11")
    assert "old-sound==2.5" not in carried(["song"], "3.13")


@pytest.mark.parametrize(("there", "carries"), [("2.0", False), ("3.1rc1", False), ("1.9", True)])
def test_a_release_that_will_do_is_not_carried_nor_what_it_needs(there: str, carries: bool) -> None:
    found = carried(["choir>=2"], present={"choir": there})
    assert ("choir==2.5" in found) == ("paper-music==2.5" in found) == carries


def test_what_is_not_here_is_carried_as_it_was_asked_for() -> None:
    assert carried(["drum>=4,<5", "drum"]) == ["drum<5,>=4"]


names = st.sampled_from("abcdef")
graphs = st.fixed_dictionaries({name: st.lists(names, unique=True) for name in "abcdef"})


@given(graphs, st.lists(names, min_size=1), st.sets(names))
def test_whatever_is_carried_needs_nothing_that_is_missing(
    graph: dict[str, list[str]], wanted: list[str], present: set[str]
) -> None:
    found = pins(wanted, "3.12", dict.fromkeys(present, "1"), graph.__getitem__, lambda name: "1")
    there = present | {pin.partition("==")[0] for pin in found}
    assert set(wanted) <= there
    assert all(set(graph[pin.partition("==")[0]]) <= there for pin in found)
    assert not present & {pin.partition("==")[0] for pin in found}


def test_what_pip_says_is_there_is_read() -> None:
    said = "# a list\nPaper_Music==1.2\ntorch==2.11.0+cu130\nours @ file:///somewhere\n-e .\n"
    assert present_in(said) == {"paper-music": "1.2", "torch": "2.11.0+cu130"}


def test_our_own_requirements_can_all_be_resolved_from_here() -> None:
    project = gpu_bundle.tomllib.loads((gpu_bundle.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = {pin.partition("==")[0] for pin in pins(wanted_by(project), PYTHON, {})}
    assert {"diffusers", "torchao", "importlib-metadata", "msgspec", "pytest"} <= found
    assert not found & {"gradio", "torch", "playwright"}


def test_the_sources_are_enough_to_run_and_no_more() -> None:
    names = {path.as_posix() for path in sources()}
    assert {"acestep/__main__.py", "calibrate/probes/worker.py", "tiers/policy.json", "tests/gpu/conftest.py"} <= names
    assert not [name for name in names if name.startswith((".", "docs/", "out/")) or name.endswith(".journal.jsonl")]


def test_the_same_content_is_the_same_archive(tmp_path: Path) -> None:
    bundles = []
    for name in ("one", "two"):
        (folder := tmp_path / name / "wheels").mkdir(parents=True)
        (folder / "song-2.5-py3-none-any.whl").write_bytes(b"la")
        write_bundle(tmp_path / f"{name}.tar", tmp_path / name, simulated_plan())
        bundles.append((tmp_path / f"{name}.tar").read_bytes())
        time.sleep(0.01)
    assert bundles[0] == bundles[1]
    with tarfile.open(tmp_path / "one.tar") as archive:
        held = archive.getnames()
    assert {"run.py", "plan.json", "wheels/song-2.5-py3-none-any.whl", "source/calibrate/cli.py"} <= set(held)


def test_the_largest_packages_are_told_with_the_wheels_of_every_python(tmp_path: Path) -> None:
    for name, mib in (("Big_Song-1-cp311.whl", 3), ("big_song-1-cp312.whl", 4), ("choir-2-py3.whl", 5), ("x-1.whl", 1)):
        (tmp_path / name).write_bytes(bytes(mib << 20))
    sizes = package_sizes(tmp_path)
    assert list(sizes.items()) == [("big-song", 7 << 20), ("choir", 5 << 20), ("x", 1 << 20)]
    told = told_sizes(14 << 20, sizes, None)
    assert told == "14.0 MiB; the largest packages: big-song 7.0 MiB, choir 5.0 MiB, x 1.0 MiB\n"
    assert told_sizes(14 << 20, sizes, 14) == told
    assert "warning: that is more than 13.5 MiB; name with --present" in told_sizes(14 << 20, sizes, 13.5)


def test_where_everything_is_there_already_a_bundle_is_sources_and_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = "".join(f"{one.name}=={one.version}\n" for one in metadata.distributions())
    (tmp_path / "there.txt").write_text(there, encoding="utf-8")
    asked = ["-o", str(tmp_path / "bundle.tar"), "--present", str(tmp_path / "there.txt"), "--device", "simulated"]
    gpu_bundle.main([*asked, "--most-mib", "0.5"])
    told = capsys.readouterr()
    assert json.loads(told.out)["packages"] == {}
    assert "warning: that is more than 0.5 MiB" in told.err
    with tarfile.open(tmp_path / "bundle.tar") as archive:
        requirements = archive.extractfile(f"requirements-{PYTHON}.txt")
        assert requirements is not None
        assert requirements.read() == b""
        assert not [name for name in archive.getnames() if name.endswith(".whl")]


def test_a_bundle_without_wheels_has_no_largest_package(tmp_path: Path) -> None:
    assert told_sizes(1 << 20, package_sizes(tmp_path / "wheels"), 64) == "1.0 MiB\n"


def test_every_step_of_the_plan_can_be_given() -> None:
    for step in (*measured_plan(), *simulated_plan()):
        assert step.command[:2] == ("{python}", "-m")
        assert find_spec(step.command[2]), step.command[2]
        if step.command[2] == "calibrate":
            asked = [part.format(python="", out="out") for part in step.command[3:]]
            assert run(cli, [*asked, "--dry-run"]) == Exit.OK


def test_the_campaign_without_language_models_feeds_the_whole_one_and_both_come_in_that_order() -> None:
    """The shared journal is where `calibrate` looks for it, and both ask the same card about the same variant."""
    steps = {step.name: step for step in measured_plan()}
    first, whole = steps["turbo-without-lm"], steps["turbo"]
    assert first.feeds == whole.journal == journal_path(Path("turbo.json")).name
    assert first.journal == journal_path(Path("turbo-without-lm.json")).name
    assert list(steps).index("turbo-without-lm") < list(steps).index("turbo")
    assert set(whole.command) - set(first.command) == {"{out}/turbo.json"}
    assert "none" in first.command


def test_the_first_steps_tell_most_and_a_machine_on_which_nothing_works_is_left_at_once() -> None:
    names = [step.name for step in measured_plan()]
    assert names[:6] == ["doctor", "smoke", "workspaces", "history", "turbo-without-lm", "caps"]
    assert names[-3:] == ["turbo", "speed", "xl-turbo"]
    assert [step.name for step in measured_plan() if step.required] == ["smoke"]


def test_another_card_of_the_same_make_goes_on_with_a_journal() -> None:
    card = Card(kind=CardKind.CUDA, name="NVIDIA L4", uuid="GPU-1", total_bytes=24 * GIB, driver="580.1")
    others = [{"name": "NVIDIA T4"}, {"total_bytes": 16 * GIB}, {"driver": "581.0"}]
    identity = identity_of(card)
    assert identity_of(msgspec.structs.replace(card, uuid="GPU-2")) == identity
    assert all(identity_of(msgspec.structs.replace(card, **other)) != identity for other in others)


COUNTS = """
import sys, time
from pathlib import Path
journal, result, until = Path(sys.argv[1] + ".journal.jsonl"), Path(sys.argv[1]), int(sys.argv[2])
lines = journal.read_text().splitlines() if "--resume" in sys.argv else []
print(len(lines), "were there", flush=True)
assert lines or not journal.exists() or not journal.stat().st_size
try:
    with journal.open("a") as file:
        for number in range(len(lines), until):
            time.sleep(0.05)
            file.write(f"{number}\\n")
            file.flush()
except KeyboardInterrupt:
    sys.exit(130)
result.write_text(journal.read_text())
journal.unlink()
"""
DEAF = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "counts.py").write_text(COUNTS, encoding="utf-8")
    (tmp_path / f"requirements-{PYTHON}.txt").touch()
    monkeypatch.setattr(gpu_run, "HERE", tmp_path)
    monkeypatch.setattr(gpu_run, "GRACE_S", 5.0)
    return tmp_path


def plan(bundle: Path, *steps: dict[str, Any]) -> None:
    usual = {"journal": "", "least_s": 0, "ends": [0], "required": False, "feeds": ""}
    (bundle / "plan.json").write_text(json.dumps([usual | step for step in steps]), encoding="utf-8")


def counting(until: int, name: str = "song") -> dict[str, Any]:
    command = ["{python}", "counts.py", f"{{out}}/{name}", str(until)]
    return {"name": name, "command": command, "journal": f"{name}.journal.jsonl"}


def piece(bundle: Path, seconds: float) -> int:
    minutes = (gpu_run.GRACE_S + seconds) / 60
    return gpu_run.main(["--minutes", str(minutes), "--out", str(bundle / "out")])


@pytest.mark.parametrize("brought", ["out", "out.tar.gz"])
def test_pieces_make_what_one_go_makes_wherever_the_results_were_in_between(bundle: Path, brought: str) -> None:
    """Also where of several results nothing but the one archive comes along."""
    plan(bundle, counting(2, "before"), counting(30))
    codes: list[int] = []
    while not codes or codes[-1] == gpu_run.INTERRUPTED:
        codes.append(piece(bundle, 0.7))
        (bundle / brought).rename(bundle / "brought back")
        shutil.rmtree(bundle / "out", ignore_errors=True)
        (bundle / "out.tar.gz").unlink(missing_ok=True)
        (bundle / "brought back").rename(bundle / brought)
    assert codes[-1] == 0
    assert len(codes) > 2
    piece(bundle, 0)
    assert (bundle / "out" / "song").read_text(encoding="utf-8") == "".join(f"{n}\n" for n in range(30))
    assert (bundle / "out" / "before").exists()
    assert not (bundle / "out" / "song.journal.jsonl").exists()
    assert not list(bundle.glob("*.unfinished"))


def test_the_archive_has_every_result_however_a_piece_ends(bundle: Path) -> None:
    fails = {"name": "fails", "command": ["{python}", "-c", "raise SystemExit(4)"]}
    plan(bundle, fails, counting(1, "short"), counting(1000))
    assert piece(bundle, 5) == gpu_run.INTERRUPTED
    with tarfile.open(bundle / "out.tar.gz") as archive:
        held = {name.removeprefix("out/") for name in archive.getnames()} - {"out"}
        journal = archive.extractfile("out/song.journal.jsonl")
        assert journal is not None
        assert journal.read() == (bundle / "out" / "song.journal.jsonl").read_bytes()
    assert held == {path.name for path in (bundle / "out").iterdir()}


def test_an_archive_that_is_not_whole_is_told_and_kept(bundle: Path) -> None:
    plan(bundle, counting(3))
    assert piece(bundle, 20) == 0
    shutil.rmtree(bundle / "out")
    broken = (bundle / "out.tar.gz").read_bytes()[:-40]
    (bundle / "out.tar.gz").write_bytes(broken)
    with pytest.raises(SystemExit, match=r"out\.tar\.gz cannot be unpacked"):
        piece(bundle, 20)
    assert (bundle / "out.tar.gz").read_bytes() == broken
    assert not (bundle / "out").exists()


def test_an_archive_does_not_take_the_place_of_results_that_are_there(bundle: Path) -> None:
    plan(bundle, counting(3))
    assert piece(bundle, 20) == 0
    (bundle / "out" / "song").write_text("newer", encoding="utf-8")
    assert piece(bundle, 20) == 0
    assert (bundle / "out" / "song").read_text(encoding="utf-8") == "newer"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_ends_the_runner_ends_the_step_and_its_journal_is_whole(bundle: Path, number: signal.Signals) -> None:
    plan(bundle, counting(1000))
    shutil.copy(gpu_run.__file__, bundle / "run.py")
    runner = subprocess.Popen([sys.executable, "run.py"], cwd=bundle, stderr=subprocess.DEVNULL)
    journal = bundle / "out" / "song.journal.jsonl"
    while not journal.exists() or not journal.read_text(encoding="utf-8"):
        time.sleep(0.02)
    runner.send_signal(number)
    assert runner.wait(20) == gpu_run.INTERRUPTED
    answers = journal.read_text(encoding="utf-8")
    time.sleep(0.3)
    assert journal.read_text(encoding="utf-8") == answers, "nobody writes any more"


def test_what_has_ended_is_not_done_again_and_what_failed_is(bundle: Path) -> None:
    fails = {"name": "fails", "command": ["{python}", "-c", "raise SystemExit(4)"]}
    judged = {"name": "judged", "command": ["{python}", "-c", "raise SystemExit(1)"], "ends": [0, 1]}
    plan(bundle, fails, judged, counting(2))
    assert piece(bundle, 20) == 4
    (bundle / "out" / "song").write_text("kept", encoding="utf-8")
    assert piece(bundle, 20) == 4
    assert (bundle / "out" / "song").read_text(encoding="utf-8") == "kept"
    assert [(bundle / "out" / f"{n}.done").exists() for n in ("fails", "judged", "song")] == [False, True, True]


def test_nothing_comes_after_a_failed_step_that_all_others_need(bundle: Path) -> None:
    plan(bundle, {"name": "smoke", "command": ["{python}", "-c", "raise SystemExit(4)"], "required": True}, counting(1))
    assert piece(bundle, 20) == 4
    assert not (bundle / "out" / "song.log").exists()
    assert (bundle / "out.tar.gz").exists()


@pytest.mark.parametrize("several_pieces", [False, True])
@pytest.mark.parametrize("links", [False, True])
def test_a_later_step_begins_with_the_answers_of_the_one_that_feeds_it(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, several_pieces: bool, links: bool
) -> None:
    """Where a file cannot have two names, it asks them again and ends with the same."""
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    plan(bundle, counting(20, "few") | {"feeds": "all.journal.jsonl"}, counting(25, "all"))
    seconds = 0.6 if several_pieces else 30
    codes: list[int] = []
    while not codes or codes[-1] == gpu_run.INTERRUPTED:
        codes.append(piece(bundle, seconds))
        shutil.rmtree(bundle / "out")
    assert (len(codes) > 1) == several_pieces
    gpu_run.unpack(bundle / "out")
    assert (bundle / "out" / "few").read_text(encoding="utf-8") == "".join(f"{n}\n" for n in range(20))
    assert (bundle / "out" / "all").read_text(encoding="utf-8") == "".join(f"{n}\n" for n in range(25))
    began = (bundle / "out" / "all.log").read_text(encoding="utf-8").splitlines()[0]
    assert began == ("20 were there" if links else "0 were there")


def test_a_script_that_a_step_starts_by_its_path_finds_the_sources(bundle: Path) -> None:
    (bundle / "source" / "kept").mkdir()
    (bundle / "source" / "kept" / "child.py").write_text("import counted\nprint(counted.SONGS)", encoding="utf-8")
    (bundle / "source" / "counted.py").write_text("SONGS = 3", encoding="utf-8")
    plan(bundle, {"name": "starts", "command": ["{python}", "kept/child.py"]})
    assert piece(bundle, 20) == 0
    assert (bundle / "out" / "starts.log").read_text(encoding="utf-8") == "3\n"


def test_a_step_is_not_begun_that_cannot_end_in_time(bundle: Path) -> None:
    plan(bundle, counting(1, "short"), {**counting(1, "long"), "least_s": 1000})
    assert piece(bundle, 20) == gpu_run.INTERRUPTED
    assert (bundle / "out" / "short").exists()
    assert not (bundle / "out" / "long.log").exists()


def test_a_piece_in_which_nothing_was_answered_asks_for_a_longer_one(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(
        bundle, {"name": "slow", "command": ["{python}", "-c", "import time; time.sleep(60)"], "journal": "slow.jsonl"}
    )
    assert piece(bundle, 0.2) == gpu_run.INTERRUPTED
    assert "with more --minutes" in capsys.readouterr().err


def test_who_does_not_hear_is_killed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_run, "GRACE_S", 0.3)
    plan(bundle, {"name": "deaf", "command": ["{python}", "-c", DEAF]})
    started = time.monotonic()
    assert piece(bundle, 0.5) == gpu_run.INTERRUPTED
    assert time.monotonic() - started < 20


def test_a_python_without_wheels_is_told_which_there_are(bundle: Path) -> None:
    (bundle / f"requirements-{PYTHON}.txt").rename(bundle / "requirements-3.99.txt")
    plan(bundle)
    with pytest.raises(SystemExit, match=r"wheels for Python 3\.99, this is"):
        piece(bundle, 1)
