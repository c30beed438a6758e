"""However a command's output ends, a script gets an exit code and a user at most one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from acestep.cli import console
from acestep.errors import Exit
from tests.forked import run_module

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")

needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def shell(line: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `acestep` is the program and `python` the interpreter of this test."""
    programs = f'python() {{ "{sys.executable}" "$@"; }}; acestep() {{ python -m acestep "$@"; }}'
    return subprocess.run(
        ["/bin/bash", "-c", f"{programs}; {line}"],
        capture_output=True,
        text=True,
        encoding="latin-1",
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "", "LC_ALL": "C.UTF-8", **environ},
        check=False,
    )


@needs_full
@pytest.mark.parametrize("arguments", ["plan --vram 8 --json", "tiers --json", "--help"])
def test_a_full_disk_gives_one_sentence(arguments: str) -> None:
    done = shell(f"acestep {arguments} >{FULL}")
    assert done.returncode == Exit.RUN_FAILED
    assert done.stderr == (
        "error: the output cannot be written (No space left on device); free some space there or send it elsewhere\n"
    )


@needs_full
def test_a_full_disk_under_both_streams_leaves_the_exit_code() -> None:
    assert shell(f"acestep plan --vram 8 >{FULL} 2>{FULL}").returncode == Exit.RUN_FAILED


def test_an_unencodable_character_gives_one_sentence() -> None:
    done = shell("acestep tiers --markdown", PYTHONIOENCODING="latin1")
    assert (done.returncode, done.stdout) == (Exit.RUN_FAILED, "")
    assert "which iso8859-1 cannot write; set PYTHONIOENCODING=utf-8" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_closed_pipe_gives_no_message() -> None:
    done = shell("acestep tiers --json | head -1; exec 2>&1; acestep tiers --json | true")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (Exit.OK, "{", "")


FAILURES = {
    "acestep plan --json --vram nine": Exit.USAGE,
    "acestep tiers --json --markdown": Exit.USAGE,
    "MAX_CUDA_VRAM=huge acestep plan --json": Exit.USAGE,
    "acestep plan --json --no-such-option": Exit.USAGE,
    "acestep generate --caption rain --batch 0 --json": Exit.USAGE,
    "python -m calibrate compare --json no_such_file.json neither_this.json": Exit.INVALID,
    "python -m ci.gate --base '' --json": Exit.USAGE,
}


@pytest.mark.parametrize(("line", "code"), FAILURES.items())
def test_with_json_a_failure_is_one_document_too(line: str, code: Exit) -> None:
    done = shell(line)
    document = json.loads(done.stdout)
    assert (done.returncode, document["error"]["exit_code"]) == (code, code)
    assert document["error"]["message"] in done.stderr


def test_so_is_one_of_a_program_that_looks_for_a_card_with_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    arguments = ("--mode", "profile", "--device", "mps", "--json")
    code, said, errors = run_module(ROOT, "profile_inference", arguments, tmp_path)
    error = json.loads(said)["error"]
    assert (code, error["exit_code"]) == (Exit.NOT_MEASURED, Exit.NOT_MEASURED)
    assert error["message"] in errors


def test_a_second_json_document_is_never_printed(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    @click.option("--json", is_flag=True)
    def late(json: bool) -> None:
        console.print_json({"half": "done"})
        raise click.Abort

    assert console.run_click(late, ["--json"]) == Exit.INTERRUPTED
    assert json.loads(capsys.readouterr().out) == {"half": "done"}


def test_a_failure_that_is_not_of_the_output_keeps_its_traceback() -> None:
    @click.command()
    def broken() -> None:
        raise OSError("not the output")

    with pytest.raises(OSError, match="not the output"):
        console.run_click(broken, [])
