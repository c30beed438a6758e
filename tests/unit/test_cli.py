"""The `acestep` command: its options, documents, exit codes, and that asking costs no torch."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

import acestep
from acestep import tiers
from acestep.cli.main import cli
from acestep.errors import Exit, UsageError
from acestep.knobs import Offload
from acestep.request import Request
from tests import acestep_command
from tests.acestep_command import FIXTURE, Command
from tests.counted import counted

ROOT = Path(__file__).parents[2]
PLAN_KEYS = {
    "card",
    "variant",
    "tier",
    "frontier",
    "attention",
    "lm",
    "init_lm",
    "lm_quantization",
    "lm_models",
    "backend",
    "backends_allowed",
    "offload",
    "quantization",
    "compile",
    "max_duration_s",
    "max_batch",
    "warnings",
}
KNOBS = {"--lm", "--lm-quantization", "--backend", "--offload", "--quantization", "--attention", "--compile"}
OPTIONS = {
    "plan": {"--vram", "--variant", "--json", "--no-compile", *KNOBS},
    "tiers": {"--variant", "--json", "--markdown"},
    "doctor": {"--json"},
    "generate": {
        *("--caption", "--lyrics", "--duration", "--batch", "--seed", "--steps", "--model", "--think", "--no-think"),
        *("--task", "--out", "--format", "--json", "--no-compile"),
        *KNOBS,
    },
}

command = acestep_command.command


def process(*arguments: str, **environ: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run `acestep` in a process of its own, and the seconds it computed; its last line of stderr lists its modules."""
    script = (
        "import sys; from pathlib import Path; from acestep import tiers;"
        f"tiers.data_file = lambda name: Path({str(FIXTURE)!r});"
        "from acestep.cli.console import run_click; from acestep.cli.main import cli;"
        "code = run_click(cli); print(' '.join(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    return counted(script, arguments, {"PATH": "", "CUDA_VISIBLE_DEVICES": "", **environ})


@pytest.mark.parametrize("arguments", ["plan --vram 8 --json", "plan", "tiers", "doctor"])
def test_asking_imports_no_torch(arguments: str) -> None:
    done, _ = process(*arguments.split())
    assert done.returncode == 0, done.stderr
    heavy = {"torch", "numpy", "transformers", "diffusers", "rich", "gradio"}
    assert not heavy & set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", ["plan --vram 8 --json", "plan", "tiers", "doctor"])
def test_asking_takes_less_than_a_third_of_a_second(arguments: str) -> None:
    # Processor time, and the best of many runs: a busy machine slows a run down and never speeds one up.
    assert any(process(*arguments.split())[1] < 0.3 for _ in range(20))


def test_the_environment_decides_the_planned_card() -> None:
    done, _ = process("plan", "--json", MAX_CUDA_VRAM="8")
    plan = json.loads(done.stdout)
    assert (plan["tier"], plan["card"]["kind"], plan["card"]["capability"]) == ("tier4", "cuda", [8, 6])
    assert "8 GiB" in plan["card"]["name"]


@pytest.mark.parametrize("variable", ["MAX_CUDA_VRAM", "MAX_MPS_VRAM"])
@pytest.mark.parametrize("arguments", ["plan", "plan --json", "doctor"])
def test_a_bad_size_in_the_environment_is_a_usage_error(
    command: Command, monkeypatch: pytest.MonkeyPatch, variable: str, arguments: str
) -> None:
    monkeypatch.setenv(variable, "huge")
    done = command(*arguments.split())
    assert done.code == Exit.USAGE
    assert variable in done.err


def test_a_plan_is_one_json_document_with_the_agreed_keys(command: Command) -> None:
    plan = json.loads(command("plan", "--vram", "11.6", "--json").out)
    assert set(plan) >= PLAN_KEYS
    assert set(plan["max_duration_s"]) == set(plan["max_batch"]) == {"with_lm", "without_lm"}
    assert plan["tier"] == "tier5"
    assert plan["warnings"] == []


def test_none_is_null_and_short_and_published_names_mean_the_same(command: Command) -> None:
    plain = json.loads(command("plan", "--vram", "24", "--lm", "none", "--quantization", "int8", "--json").out)
    named = json.loads(
        command("plan", "--vram", "24", "--lm", "NULL", "--quantization", "int8_weight_only", "--json").out
    )
    assert plain == named
    assert (plain["lm"], plain["quantization"]) == (None, "int8")
    short = command("plan", "--vram", "24", "--variant", "turbo", "--lm", "0.6B", "--json").out
    assert (
        command("plan", "--vram", "24", "--variant", "acestep-v15-turbo", "--lm", "acestep-5Hz-lm-0.6B", "--json").out
        == short
    )


def test_a_plan_for_a_person_names_tier_limits_and_every_warning(command: Command) -> None:
    page = command("plan", "--vram", "8", "--lm", "4B", "--no-compile").out
    for part in ("tier4", "10 min", "8 min", "warning: ", "4B", "compile         off"):
        assert part in page


@pytest.mark.parametrize(
    "arguments",
    [
        "plan --vram 0",
        "plan --vram -8",
        "plan --vram nan",
        "plan --vram eight",
        "plan --lm 9B",
        "plan --offload moon",
        "plan --quantization int3",
        "plan --variant mega",
        "plan --nonsense",
        "tiers --variant base",
        "dance",
        "generate",
        "generate --caption x --duration 0.1",
        "generate --caption x --duration nan",
        "generate --caption x --batch 0",
        "generate --caption x --seed -2",
        "generate --caption x --task dance",
        "generate --caption x --format ogg",
    ],
)
def test_an_invalid_value_is_a_usage_error_on_stderr_only(command: Command, arguments: str) -> None:
    done = command(*arguments.split())
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert done.err


@pytest.mark.parametrize("flag", ["--lm", "--quantization", "--lm-quantization"])
def test_the_error_for_a_nullable_knob_lists_none(command: Command, flag: str) -> None:
    assert command("plan", "--vram", "8", flag, "none").code == Exit.OK
    done = command("plan", "--vram", "8", flag, "nope")
    assert done.code == Exit.USAGE
    assert re.search(r"must be one of .*\bnone\b.*, got 'nope'", done.err)


@pytest.mark.parametrize("arguments", ["plan --vram 8", "tiers --json", "doctor", "plan --json"])
@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"schema_version": 1', '"schema_version": 2', "schema_version"),
        ('"certified_gib": 4', '"certified_gib": "4"', "certified_gib"),
        ('"label"', '"lable"', "lable"),
        ("}", "", "cut short"),
    ],
    ids=["newer", "wrong type", "unknown field", "truncated"],
)
def test_a_bad_table_ends_every_command_with_its_file_and_field(
    command: Command, tmp_path: Path, arguments: str, old: str, new: str, field: str
) -> None:
    table = tmp_path / "bad_table.json"
    table.write_text(FIXTURE.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    done = command(*arguments.split(), table=table)
    assert done.code == Exit.INVALID
    assert "bad_table.json" in done.err
    assert field in done.err


@pytest.mark.parametrize("arguments", ["", "--port 0 --language ko", "ui --port 0 --language ko"])
def test_without_a_command_the_page_is_opened(
    arguments: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[dict[str, Any]] = []
    module = ModuleType("acestep.ui.serve")
    module.serve_page = lambda **how: opened.append(how)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acestep.ui.serve", module)
    assert command(*arguments.split()).code == Exit.OK
    assert [(how["port"], how["language"]) for how in opened] == [(0, "ko") if arguments else (7860, None)]


def test_the_help_names_every_command(command: Command) -> None:
    done = command("--help")
    assert done.code == Exit.OK
    assert all(name in done.out for name in cli.commands)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_agreed_options_are_there(name: str) -> None:
    options = {flag for option in cli.commands[name].params for flag in (*option.opts, *option.secondary_opts)}
    assert options >= OPTIONS[name]


def test_the_table_is_shown_with_every_tier_as_text_markdown_and_json(command: Command) -> None:
    document = json.loads(command("tiers", "--json").out)
    ids = [tier["id"] for tier in document["tiers"]]
    assert document["variant"] == "turbo"
    for flags in ((), ("--markdown",)):
        page = command("tiers", *flags).out
        assert all(tier_id in page for tier_id in ids)
    rows = command("tiers", "--markdown").out.splitlines()
    assert len(rows) == len(ids) + 2
    assert len({row.count("|") for row in rows}) == 1


def test_the_doctor_says_what_was_found(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_CUDA_VRAM", "8")
    monkeypatch.setenv("ACESTEP_CHECKPOINTS_DIR", "no/such/folder")
    findings = json.loads(command("doctor", "--json").out)
    assert findings["tier"] == "tier4"
    assert findings["packages"]["torch"]
    assert findings["checkpoints"] == []
    page = command("doctor").out
    for part in ("simulated 8 GiB card", "torch", "attention", "compile", "tier table", "no/such/folder", "advice"):
        assert part in page


@pytest.mark.parametrize("variable", ["ACESTEP_DEVICE", "ACESTEP_LM_DEVICE"])
def test_the_doctor_says_all_it_found_beside_a_device_that_is_not_here(
    command: Command, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "no such card")
    done = command("doctor")
    assert done.code == Exit.USAGE
    assert variable in done.err
    assert "asked NVML" in done.out


def test_python_resolves_plans_with_overrides_as_text_or_values(
    monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    command("tiers")
    monkeypatch.setenv("MAX_CUDA_VRAM", "24")
    tiers._table_in_force.cache_clear()
    plan = acestep.resolve_plan(offload="cpu", lm=None)
    tiers._table_in_force.cache_clear()
    assert (plan.tier, plan.offload, plan.lm) == ("unlimited", Offload.CPU, None)
    assert acestep.load_tiers is tiers.load_tiers
    assert acestep.Request is Request
    with pytest.raises(AttributeError):
        _ = acestep.nothing
    with pytest.raises(UsageError):
        acestep.resolve_plan(colour="red")


def test_a_plan_document_reads_back_as_the_plan(command: Command) -> None:
    from acestep.limits.plan import Plan

    document = json.loads(command("plan", "--vram", "6.4", "--lm", "4B", "--json").out)
    del document["times"], document["adapter_bytes"]
    assert json.loads(msgspec.json.encode(msgspec.convert(document, Plan))) == document
