"""Asks torch for its cards in a separate process, so that this one stays fast and does not initialise the driver."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from acestep.hardware.detection.answers import Answer, Problem, Source

LONGEST_S: Final = 90.0
"""Seconds that torch may take to start; it is slow on a cold disk."""

CHILD: Final = (sys.executable, "-m", "acestep.hardware.detection.torch_child")


def ask_torch_in_child(
    environ: Mapping[str, str] = os.environ, command: Sequence[str] = CHILD, longest_s: float = LONGEST_S
) -> Answer:
    """Return the answer of a torch imported in a child process.

    A child that fails or hangs is a problem of the answer.
    """
    try:
        done = subprocess.run(  # noqa: S603 our own interpreter and module
            command, capture_output=True, env={**environ, "PYTHONWARNINGS": "ignore"}, timeout=longest_s, check=False
        )
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=Answer)
    except subprocess.TimeoutExpired:
        why = f"gave no answer within {longest_s:g} s"
    except IndexError:
        words = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        why = f"could not be imported ({words[-1][:200]})"
    except (OSError, ValueError) as error:
        why = f"could not be asked ({error})"
    problem = Problem(
        sentence=f"torch {why}.", advice="Install torch again, or look at what `python -c 'import torch'` says."
    )
    return Answer(source=Source.TORCH, asked="torch", problems=(problem,))


def main() -> None:
    """Print what torch says, as one line of JSON."""
    import torch

    from acestep.hardware.detection.torch_cards import ask_torch

    sys.stdout.write(msgspec.json.encode(ask_torch(torch)).decode() + "\n")


if __name__ == "__main__":
    # CUDA must count cards by slot, as every plan here does.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    main()
