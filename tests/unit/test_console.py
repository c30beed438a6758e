"""However a command's output ends, a script gets an exit code and a user at most one sentence."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from acestep.cli import console
from acestep.cli.main import cli as acestep
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


@pytest.mark.parametrize(
    ("system", "environ", "encoding"),
    [("nt", {}, "utf-8"), ("nt", {"PYTHONIOENCODING": "cp1252"}, "cp1252"), ("posix", {}, "cp1252")],
)
def test_a_pipe_of_windows_takes_every_character(
    monkeypatch: pytest.MonkeyPatch, system: str, environ: dict[str, str], encoding: str
) -> None:
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", pipe)
    monkeypatch.setattr(sys, "stderr", None)
    console.write_utf8(system, environ)
    assert pipe.encoding == encoding


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


NO_TEXT = "\udcff"
"""What Python makes of an argument byte that is not UTF-8."""


@pytest.mark.parametrize(
    "arguments",
    [
        ["tiers", "--variant", NO_TEXT],
        ["plan", "--lm", NO_TEXT],
        ["plan", "--vram", NO_TEXT],
        ["generate", "--caption", "x", "--model", NO_TEXT],
        ["generate", "--caption", "x", "--out", NO_TEXT, "--model", "tiny"],
        ["generate", "--caption", "x", "--model", "tiny", "--src-audio", NO_TEXT, "--task", "cover"],
        [NO_TEXT],
    ],
)
def test_an_argument_that_is_no_text_gives_a_document_too(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = console.run_click(acestep, [*arguments, "--json"])
    assert code in (Exit.USAGE, Exit.INVALID)
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["exit_code"] == code
    assert document["error"]["message"].encode()


def test_a_document_with_a_text_that_utf_8_cannot_hold_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"songs": [{"path": f"a{NO_TEXT}", NO_TEXT: 1}]})
    assert json.loads(capsys.readouterr().out) == {"songs": [{"path": "a\\udcff", "\\udcff": 1}]}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE])
def test_a_system_that_refuses_is_a_failed_run_and_no_traceback(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    @click.option("--json", is_flag=True)
    def full(**_: bool) -> None:
        raise OSError(number, os.strerror(number), "acestep-noise-x")

    assert console.run_click(full, ["--json"]) == Exit.RUN_FAILED
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["exit_code"] == Exit.RUN_FAILED
    assert os.strerror(number) in err
    assert "Traceback" not in err


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_told_to_end_is_interrupted(end: signal.Signals) -> None:
    code = (
        "import click, time; from acestep.cli import console\n"
        "@click.command()\n"
        "def wait():\n"
        "    print('waiting', flush=True); time.sleep(60)\n"
        "console.run_and_exit(wait)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as waits:
        assert waits.stdout is not None
        assert waits.stdout.readline() == b"waiting\n"
        waits.send_signal(end)
        _, told = waits.communicate(timeout=30)
    assert waits.returncode == Exit.INTERRUPTED
    assert told.split() == [b"interrupted"]


def test_a_program_with_pytorch_ends_at_once_and_does_what_is_left_to_the_end() -> None:
    code = (
        "import atexit, click, sys; from acestep.cli import console\n"
        "class Kept:\n"
        "    def __del__(self): print('freed')\n"
        "@click.command()\n"
        "def last():\n"
        "    sys.modules['torch'] = kept = Kept(); kept.itself = kept\n"
        "    atexit.register(lambda: print('left to the end')); return 7\n"
        "console.run_and_exit(last)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, "left to the end\n", "")
