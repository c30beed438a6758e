"""`python -m calibrate explain` as people run it: text, one JSON document, a command to repeat, and exit codes."""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.budgets import System
from acestep.cli.console import run_click
from acestep.errors import Exit
from acestep.knobs import Knobs
from acestep.tiers import load_tiers
from calibrate.campaign import probers
from calibrate.cli import cli as calibrate
from calibrate.explain.repeat import repeat_command
from calibrate.record.measurement import content_digest, load_measurement
from calibrate.report import estimate as estimates
from calibrate.table.policy import budget_bytes, load_policy
from calibrate.workload import Workload
from tests.counted import counted

ROOT = Path(__file__).parents[2]
TIERS = ROOT / "tiers"
POLICY = load_policy()
Explain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str]) -> Explain:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = run_click(calibrate, ["explain", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiers folder of turbo alone, to damage."""
    (tmp_path / "measurements").mkdir()
    shutil.copy(TIERS / "measurements" / "simulated-turbo.json", tmp_path / "measurements")
    for name in ("policy.json", "generated_tiers.json"):
        shutil.copy(TIERS / name, tmp_path)
    return tmp_path


def changed(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def test_the_text_names_the_value_its_record_the_budget_and_both_probes(explain: Explain) -> None:
    code, out, err = explain("turbo", "tier1", "quantization")
    assert (code, err) == (Exit.OK, "")
    table = load_tiers(TIERS / "generated_tiers.json")
    tier = table.variants["turbo"].tiers[0]  # type: ignore[index]
    record = load_measurement(TIERS / "measurements" / "simulated-turbo.json")
    for part in (
        f'quantization: "{tier.quantization}"',
        "simulated-turbo.json",
        record.digest[:19],
        record.card.name,
        "nameplate - 0.37 shortfall",
        "Fits      Probe",
        "Fails     Probe",
        "oom in denoise",
        " MiB",
        "Repeat: python -m calibrate estimate --vram 4 ",
    ):
        assert part in out, part


def test_json_is_one_document_with_what_the_text_says(explain: Explain) -> None:
    code, out, err = explain("turbo", "tier4", "max_batch.with_lm", "--json")
    assert (code, err) == (Exit.OK, "")
    document = json.loads(out)
    assert set(document) == {"variant", "tier", "label", "field", "value", "cells"}
    (cell,) = document["cells"]
    assert cell["value"] == document["value"]
    assert cell["sources"][0]["digest"] == cell["evidence"]["record"] == cell["fits"]["record"]
    assert cell["fits"]["cap_bytes"] == cell["budgets"][0]["cap_bytes"] == budget_bytes(8, POLICY)
    assert cell["fits"]["stages"]


def test_a_variant_may_have_its_published_name(explain: Explain) -> None:
    assert explain("acestep-v15-turbo", "tier4", "offload") == explain("turbo", "tier4", "offload")


def test_every_command_to_repeat_asks_what_the_probe_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[Knobs, Workload, int | None]] = []

    class HeardError(Exception):
        """Stops the prober after enough questions."""

    def hear(_: object, knobs: Knobs, workload: Workload, cap_bytes: int | None) -> None:
        heard.append((knobs, workload, cap_bytes))
        raise HeardError

    monkeypatch.setattr(probers, "simulation", lambda *_, **__: None)
    monkeypatch.setattr(estimates, "estimate", hear)
    sizes = product(POLICY.certified_sizes_gib, System)
    size_of = {(budget_bytes(size, POLICY, system), system): size for size, system in sizes}
    for path in sorted((TIERS / "measurements").glob("*.json")):
        record = load_measurement(path)
        system = record.card.system
        for index in {side for c in record.certificates for side in (c.fits, c.fails) if side is not None}:
            probe = record.probes[index]
            command = shlex.split(repeat_command(probe.knobs, probe.workload, size_of[probe.cap_bytes, system], system))
            assert command[:3] == ["python", "-m", "calibrate"]
            with pytest.raises(HeardError):
                run_click(calibrate, command[3:])
            assert heard.pop() == probe.question


@pytest.mark.parametrize(
    ("arguments", "what", "nearest"),
    [
        (("trubo", "tier4", "offload"), "variant", "turbo"),
        (("xl_base", "tier4", "offload"), "variant", "xl-base"),
        (("turbo", "tier6", "offload"), "tier", "tier6"),
        (("turbo", "unlimitted", "offload"), "tier", "unlimited"),
        (("turbo", "tier4", "offlaod"), "field", "offload"),
        (("turbo", "tier4", "OFFLOAD"), "field", "offload"),
        (("turbo", "tier4", "max_batch.withlm"), "field", "max_batch.with_lm"),
        (("turbo", "tier4", "frontier.with_lm.3"), "field", "frontier.with_lm"),
        (("turbo", "tier4", "evidence.max_bach"), "field", "evidence.max_batch"),
        (("turbo", "tier4", ""), "field", ""),
    ],
)
def test_an_unknown_name_is_a_usage_error_that_lists_the_nearest_first(
    explain: Explain, arguments: tuple[str, ...], what: str, nearest: str
) -> None:
    code, out, err = explain(*arguments)
    assert (code, out) == (Exit.USAGE, "")
    listed = err.partition("must be one of ")[2]
    assert err.startswith(f"error: {what} ")
    assert listed.startswith(nearest)
    code, out, _ = explain(*arguments, "--json")
    assert (code, json.loads(out)["error"]["exit_code"]) == (Exit.USAGE, Exit.USAGE)


def tier4(document: Any) -> Any:
    return document["variants"]["turbo"]["tiers"][3]


def forged(path: Path, change: Callable[[Any], object]) -> None:
    """Change a record and give it the digest that its content has then."""
    changed(path, change)
    document = json.loads(path.read_text(encoding="utf-8"))
    document["digest"] = content_digest(msgspec.convert(document, type(load_measurement(TURBO))))
    path.write_text(json.dumps(document), encoding="utf-8")


TURBO = TIERS / "measurements" / "simulated-turbo.json"

DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "the record is gone": (lambda f: (f / "measurements" / "simulated-turbo.json").unlink(), "no file here"),
    "the record was edited": (
        lambda f: changed(f / "measurements" / "simulated-turbo.json", lambda d: d["card"].update(name="other")),
        "was it edited?",
    ),
    "the record was made again": (
        lambda f: forged(f / "measurements" / "simulated-turbo.json", lambda d: d["card"].update(name="other")),
        "no file here",
    ),
    "the record is no JSON": (
        lambda f: (f / "measurements" / "simulated-turbo.json").write_text("{", encoding="utf-8"),
        "no file here",
    ),
    "the policy was edited": (
        lambda f: changed(f / "policy.json", lambda d: d["budget"]["headroom"].update(share=0.03)),
        "policy",
    ),
    "the table promises more": (
        lambda f: changed(f / "generated_tiers.json", lambda d: tier4(d).update(offload="none")),
        "offload",
    ),
    "the table names another record": (
        lambda f: changed(
            f / "generated_tiers.json",
            lambda d: tier4(d)["evidence"]["frontier"].update(record="sha256:" + "1" * 64),
        ),
        "sha256:111111111111",
    ),
    "the table names no record": (
        lambda f: changed(f / "generated_tiers.json", lambda d: tier4(d)["evidence"].pop("frontier")),
        "names no record",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_table_that_does_not_follow_from_its_records_is_invalid(explain: Explain, folder: Path, damage: str) -> None:
    assert explain("turbo", "tier4", "max_batch.with_lm", "--folder", folder)[0] == Exit.OK
    do, said = DAMAGES[damage]
    do(folder)
    code, out, err = explain("turbo", "tier4", "max_batch.with_lm", "--folder", folder)
    assert (code, out) == (Exit.INVALID, ""), err
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_a_boundary_and_a_decided_field_that_were_edited_are_invalid(explain: Explain, folder: Path) -> None:
    def edit(document: Any) -> None:
        document["variants"]["turbo"]["boundaries"]["without_offload"].update(fits_gib=4, tier="tier1", fails_gib=0)
        tier4(document)["backend"] = "pt"

    changed(folder / "generated_tiers.json", edit)
    for field in ("boundaries.without_offload", "backend"):
        code, out, err = explain("turbo", "tier4", field, "--folder", folder)
        assert (code, out) == (Exit.INVALID, ""), err


def test_a_decided_field_needs_no_record(explain: Explain, folder: Path) -> None:
    shutil.rmtree(folder / "measurements")
    code, out, _ = explain("turbo", "tier4", "backend", "--folder", folder)
    assert code == Exit.OK
    assert "policy.json tiers[3].backend" in out


def seconds_of(*arguments: str) -> tuple[float, set[str]]:
    """The processor time that `calibrate` takes in a process of its own, and the modules it imports."""
    script = (
        "import sys; from acestep.cli.console import run_click; from calibrate.cli import cli; code = run_click(cli);"
        "print(' '.join(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done, seconds = counted(script, arguments, {"PATH": os.defpath})
    assert done.returncode == 0, done.stderr
    return seconds, set(done.stderr.splitlines()[-1].split())


def test_it_imports_no_torch_and_takes_less_than_a_third_of_a_second() -> None:
    # The best of a few runs: a busy machine slows a run down, and then `--help` as well, and never speeds one up.
    best, helped = float("inf"), float("inf")
    for _ in range(6):
        seconds, modules = seconds_of("explain", "turbo", "tier4", "max_batch.with_lm")
        assert not {"torch", "numpy", "pandas", "rich"} & modules
        best = min(best, seconds)
        if best < 0.3:
            break
        helped = min(helped, seconds_of("--help")[0])
    assert best < 0.3 or best < 2 * helped
