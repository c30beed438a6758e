"""The C++ sources: formatted as `make virtual-format` formats them."""

import subprocess
import sys
from pathlib import Path

from virtual_card.build import SOURCES


def test_they_are_formatted() -> None:
    formatter = Path(sys.prefix) / "bin" / "clang-format"
    sources = sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")])
    done = subprocess.run(
        [str(formatter), "--dry-run", "--Werror", *map(str, sources)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
