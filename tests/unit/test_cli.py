"""The `acestep` command: its options, documents, exit codes, and that asking costs no torch."""

import ast
import inspect
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest

import acestep
from acestep import tiers
from acestep.cli import _REQUEST_FLAGS, _THINKING_FLAGS, _in_flags, cli
from acestep.console import run
from acestep.errors import Exit, RunFailedError, UsageError
from acestep.knobs import Offload, Variant
from acestep.plan import Overrides
from acestep.planner.job import Sampling
from acestep.request import _READ_BY, Request
from acestep.thinking import Think

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "tests" / "fixtures" / "tiers.json"
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

Command = Callable[..., SimpleNamespace]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `acestep` in this process with a table of our own and no card."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("MAX_CUDA_VRAM", raising=False)
    monkeypatch.delenv("MAX_MPS_VRAM", raising=False)

    def call(*arguments: str, table: Path = FIXTURE) -> SimpleNamespace:
        monkeypatch.setattr(tiers, "data_file", lambda name: table)
        tiers._table_in_force.cache_clear()
        try:
            code = run(cli, arguments)
        finally:
            tiers._table_in_force.cache_clear()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return call


def process(*arguments: str, **environ: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run `acestep` in a process of its own, and the seconds it computed; its last line of stderr lists its modules."""
    script = (
        "import sys; from pathlib import Path; from acestep import tiers;"
        f"tiers.data_file = lambda name: Path({str(FIXTURE)!r});"
        "from acestep.console import run; from acestep.cli import cli;"
        "code = run(cli); print(' '.join(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environ},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("arguments", ["plan --vram 8 --json", "plan", "tiers", "doctor"])
def test_asking_imports_no_torch(arguments: str) -> None:
    done, _ = process(*arguments.split())
    assert done.returncode == 0, done.stderr
    heavy = {"torch", "numpy", "transformers", "diffusers", "rich", "gradio"}
    assert not heavy & set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", ["plan --vram 8 --json", "plan", "tiers", "doctor"])
def test_asking_takes_less_than_a_third_of_a_second(arguments: str) -> None:
    # Processor time, and the best of a few runs: a busy machine slows a run down and never speeds one up.
    assert any(process(*arguments.split())[1] < 0.3 for _ in range(6))


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
    assert (done.code, done.out) == (Exit.USAGE, "")
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
        "tiers --json --markdown",
        "dance",
        "generate",
        "generate --caption x --duration 0.1",
        "generate --caption x --duration nan",
        "generate --caption x --batch 0",
        "generate --caption x --seed -1",
        "generate --caption x --task dance",
        "generate --caption x --format ogg",
    ],
)
def test_what_cannot_mean_anything_is_a_usage_error_on_stderr_only(command: Command, arguments: str) -> None:
    done = command(*arguments.split())
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert done.err


@pytest.mark.parametrize("flag", ["--lm", "--quantization", "--lm-quantization"])
def test_a_knob_that_can_be_none_says_so_when_it_is_not_understood(command: Command, flag: str) -> None:
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
    assert (done.code, done.out) == (Exit.INVALID, "")
    assert "bad_table.json" in done.err
    assert field in done.err


@pytest.mark.parametrize("arguments", ["", "--port 0 --language ko", "ui --port 0 --language ko"])
def test_without_a_command_the_page_is_opened(
    arguments: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[dict[str, Any]] = []
    module = ModuleType("acestep.ui.serve")
    module.serve = lambda **how: opened.append(how)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acestep.ui.serve", module)
    assert command(*arguments.split()).code == Exit.OK
    assert [(how["port"], how["language"]) for how in opened] == [(0, "ko") if arguments else (7860, "en")]


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


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for the part that loads models; keeps what it was asked for."""
    calls: list[dict[str, Any]] = []

    def run_generate(request: Request, **rest: Any) -> dict[str, Any]:
        calls.append({"request": request, **rest})
        rest["notify"]("tiny weights make noise")
        rest["progress"]("denoise", 1, 2)
        return {"songs": [{"path": "out/a.flac", "seed": request.seed, "duration_s": 90.0}], "warnings": []}

    module = ModuleType("acestep.api")
    module.run_generate = run_generate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acestep.api", module)
    return SimpleNamespace(calls=calls, module=module)


def test_generate_hands_on_what_was_asked(command: Command, api: SimpleNamespace, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("봄날의 노래", encoding="utf-8")
    arguments = "--duration 90 --batch 2 --seed 7 --steps 4 --bpm 92 --model xl-turbo --offload stream --format wav"
    done = command("generate", "--caption", "slow piano", "--lyrics", f"@{words}", *arguments.split(), "--out", "o")
    assert done.code == Exit.OK
    (call,) = api.calls
    assert call["request"] == Request(
        caption="slow piano", lyrics="봄날의 노래", duration_s=90, batch=2, seed=7, steps=4, bpm=92, think=True
    )
    assert call["overrides"] == Overrides(variant=Variant.XL_TURBO, offload=Offload.STREAM)
    assert (call["model"], call["out"], call["audio_format"]) == ("xl-turbo", Path("o"), "wav")
    assert call["think"] is Think.AS_PLANNED
    assert "out/a.flac" in done.out
    assert "1 min 30 s" in done.out
    assert "noise" in done.err


def test_generate_with_json_prints_one_document_and_talks_on_stderr(command: Command, api: SimpleNamespace) -> None:
    done = command("generate", "--caption", "x", "--json", "--no-think")
    assert json.loads(done.out)["songs"][0]["path"] == "out/a.flac"
    assert "noise" in done.err
    assert (api.calls[0]["think"], api.calls[0]["request"].think) == (Think.NO, False)


def test_songs_without_a_seed_differ(command: Command, api: SimpleNamespace) -> None:
    for _ in range(2):
        command("generate", "--caption", "x")
    first, second = (call["request"].seed for call in api.calls)
    assert first != second


def test_lyrics_from_a_file_that_is_not_there_are_invalid_input(command: Command, api: SimpleNamespace) -> None:
    done = command("generate", "--caption", "x", "--lyrics", "@missing.txt")
    assert done.code == Exit.INVALID
    assert "missing.txt" in done.err
    assert api.calls == []


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--model", "", "--model is empty"),
        ("--model", " ", "--model is empty"),
        ("--out", "", "--out is empty"),
        ("--lyrics", "@", "@ must be followed by the name of a file"),
        ("--audio-codes", "@", "@ must be followed by the name of a file"),
    ],
)
def test_an_option_that_names_nothing_is_a_usage_error(
    command: Command, api: SimpleNamespace, flag: str, value: str, said: str
) -> None:
    done = command("generate", "--caption", "x", flag, value)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert said in done.err
    assert api.calls == []


def flags_of_generate() -> set[str]:
    return {flag for option in cli.commands["generate"].params for flag in option.opts}


def test_every_field_that_a_request_may_refuse_has_a_flag() -> None:
    refusing = [node for node in ast.walk(ast.parse(inspect.getsource(Request))) if isinstance(node, ast.Raise)]
    told = " ".join(str(part.value) for node in refusing for part in ast.walk(node) if isinstance(part, ast.Constant))
    fields = {field for field in Request.__struct_fields__ if re.search(rf"\b{field}\b", told)} | set(_READ_BY)
    # "the task is text2music" speaks of the task by its own name, which is that of its flag.
    assert set(_REQUEST_FLAGS) == fields - {"task"}
    assert set(_REQUEST_FLAGS.values()) <= flags_of_generate()


def test_every_field_that_sets_how_a_plan_is_drawn_has_a_flag() -> None:
    # The penalty has no option, so that nobody can be refused for it.
    assert set(_THINKING_FLAGS) == {"thinking seed", *Sampling.__struct_fields__} - {"repetition_penalty"}
    assert set(_THINKING_FLAGS.values()) <= flags_of_generate()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--duration", "4000"], "--duration must be 1 to 3600 seconds, got 4000"),
        (["--task", "cover"], "it needs --src-audio or --audio-codes"),
        (["--audio-codes", "<|audio_code_1|>"], "--audio-codes must last at least 1 second"),
        (["--repaint-start", "-1"], "--repaint-start is for lego and repaint; the task is text2music"),
        (["--lm-cfg-scale", "99"], "--lm-cfg-scale must be 1 to 30, got 99"),
        (["--guidance-scale", "99"], "--guidance-scale must be 0 to 30, got 99"),
        (["--plan-seed", "-1"], "--plan-seed must be 0 to"),
        (["--lm-top-k", "-1"], "--lm-top-k must be 0 to"),
    ],
)
def test_what_is_refused_is_named_as_it_was_typed(
    command: Command, api: SimpleNamespace, arguments: list[str], said: str
) -> None:
    done = command("generate", "--caption", "x", *arguments)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert said in done.err
    assert api.calls == []


def test_a_quoted_name_stays_as_it_was_written() -> None:
    assert _in_flags("tracks must be names, got 'my track two', ''", _REQUEST_FLAGS) == (
        "--tracks must be names, got 'my track two', ''"
    )


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (RunFailedError("the disk is full"), Exit.RUN_FAILED, "error: the disk is full"),
        (UsageError("no such model"), Exit.USAGE, "error: no such model"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "interrupted"),
    ],
)
def test_each_way_to_fail_has_its_exit_code_and_its_sentence(
    command: Command, api: SimpleNamespace, failure: BaseException, code: Exit, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    api.module.run_generate = fail
    done = command("generate", "--caption", "x")
    assert (done.code, done.out, done.err.strip()) == (code, "", said)


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
    from acestep.plan import Plan

    text = command("plan", "--vram", "6.4", "--lm", "4B", "--json").out
    assert json.loads(msgspec.json.encode(msgspec.json.decode(text, type=Plan))) == json.loads(text)
