"""A bundle with PyTorch in it, unpacked where there is nothing, installed without an index, run in pieces.

The campaign is a simulated one, so no card is needed; the wheels come from wherever pip is set up to get them.
"""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tools.gpu_bundle import main
from tools.gpu_run import INTERRUPTED, unpack

MINUTES = (1.2, 1.5, 30.0)
"""Of the pieces: some answers come in the first two, and far from all; what the guard is fitted with takes longest."""


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_pieces_in_a_fresh_environment_make_what_one_go_makes(tmp_path: Path) -> None:
    main(["-o", str(tmp_path / "bundle.tar"), "--device", "simulated", "--with-torch"])
    there = tmp_path / "there"
    with tarfile.open(tmp_path / "bundle.tar") as archive:
        archive.extractall(there, filter="data")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "fresh")], check=True)
    python = str(tmp_path / "fresh" / "bin" / "python")
    codes = []
    for minutes in MINUTES:
        command = [python, "run.py", "--minutes", str(minutes)]
        codes.append(subprocess.run(command, cwd=there, check=False).returncode)
        # The archive that a piece brought back is all that the next one finds.
        shutil.rmtree(there / "out")
    unpack(there / "out")
    assert codes == [INTERRUPTED, INTERRUPTED, 0], (there / "out" / "trial.log").read_text(encoding="utf-8")
    assert (
        subprocess.run([python, "run.py", "--out", "whole", "--minutes", "30"], cwd=there, check=False).returncode == 0
    )
    assert (there / "out" / "trial.json").read_bytes() == (there / "whole" / "trial.json").read_bytes()
