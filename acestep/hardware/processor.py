"""What this machine's processor can multiply."""

from pathlib import Path
from typing import Final

BFLOAT16_FLAG: Final = "avx512_bf16"
"""Linux's name of the instructions; every processor with AMX for bfloat16 has them too."""


def multiplies_bfloat16(root: Path = Path("/")) -> bool | None:
    """Return whether the processor has instructions for products of bfloat16 numbers; None if that is not known.

    Linux lists them; elsewhere only PyTorch can tell (`acestep.devices.cpu.cpu_dtype`). `root` is the top of the file
    system.
    """
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return BFLOAT16_FLAG in flags.split() if flags else None
