"""The bundle carries what is missing and nothing else, with a plan of steps that can all be given."""

import json
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.cli.console import run_click
from acestep.errors import Exit
from acestep.hardware.card import Card, CardKind
from acestep.units import GIB, MIB
from calibrate.campaign.journal import journal_path
from calibrate.cli import cli
from calibrate.executors.cards import identity_of
from tools import gpu_bundle
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
    project = gpu_bundle.tomllib.loads((gpu_bundle._ROOT / "pyproject.toml").read_text(encoding="utf-8"))
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
        (tmp_path / name).write_bytes(bytes(mib * MIB))
    sizes = package_sizes(tmp_path)
    assert list(sizes.items()) == [("big-song", 7 * MIB), ("choir", 5 * MIB), ("x", MIB)]
    told = told_sizes(14 * MIB, sizes, None)
    assert told == "14.0 MiB; the largest packages: big-song 7.0 MiB, choir 5.0 MiB, x 1.0 MiB\n"
    assert told_sizes(14 * MIB, sizes, 14) == told
    assert "warning: that is more than 13.5 MiB; name with --present" in told_sizes(14 * MIB, sizes, 13.5)


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
    assert told_sizes(MIB, package_sizes(tmp_path / "wheels"), 64) == "1.0 MiB\n"


def test_every_step_of_the_plan_can_be_given() -> None:
    for step in (*measured_plan(), *simulated_plan()):
        assert step.command[:2] == ("{python}", "-m")
        assert find_spec(step.command[2]), step.command[2]
        if step.command[2] == "calibrate":
            asked = [part.format(python="", out="out") for part in step.command[3:]]
            assert run_click(cli, [*asked, "--dry-run"]) == Exit.OK


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
