"""`make install` shows each package once, keeps everything that pip says, and shows why pip failed."""

import sys
from pathlib import Path

import pytest

from tools.install import install, pip_progress

SAID = """\
WARNING: Location 'somewhere' is ignored: it is neither a file nor a directory.
Obtaining file:///somewhere
  Installing build dependencies: started
Collecting torch==2.13.0
Processing /a/disk/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl
Collecting numpy>=2.0
  Downloading numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (6.6 kB)
Downloading numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl (16.9 MB)
Using cached click-8.5.1-py3-none-any.whl (110 kB)
Using cached click-8.5.1-py3-none-any.whl (110 kB)
Requirement already satisfied: pip in somewhere (26.3)
Installing collected packages: torch, numpy, click
Successfully installed click-8.5.1 numpy-2.4.6 torch-2.13.0+cpu
"""


def test_a_line_for_each_package_and_one_for_installing() -> None:
    assert list(pip_progress(SAID.splitlines(keepends=True))) == [
        "  torch 2.13.0+cpu",
        "  numpy 2.4.6 (16.9 MB)",
        "  click 8.5.1 (110 kB)",
        "  installing 3 packages",
    ]


def test_one_package_is_named() -> None:
    assert list(pip_progress(["Installing collected packages: pip\n"])) == ["  installing pip"]


def venv_with_pip(folder: Path, script: str) -> Path:
    """As much of an environment as is used: a `python` that runs `script` instead of pip."""
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text(f"#!{sys.executable}\n{script}\n", encoding="utf-8")
    python.chmod(0o755)
    return folder


def test_the_log_keeps_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    venv = venv_with_pip(tmp_path, f"print({SAID!r}, end='')")
    assert install(venv, ["numpy"]) == 0
    assert (venv / "install.log").read_text(encoding="utf-8") == SAID
    out, err = capsys.readouterr()
    assert "numpy 2.4.6" in out
    assert err == ""


def test_a_failure_keeps_pips_exit_code_and_shows_its_last_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "".join(f"line {number}\n" for number in range(100)) + "ERROR: No matching distribution found for nothing\n"
    venv = venv_with_pip(tmp_path, f"import sys; print({lines!r}, end='', file=sys.stderr); sys.exit(3)")
    assert install(venv, ["nothing"]) == 3
    err = capsys.readouterr().err
    assert "No matching distribution found for nothing" in err
    assert str(venv / "install.log") in err
    assert "line 1\n" not in err
