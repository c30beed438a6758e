"""Runs a command on a machine with virtual cards: `python -m virtual_card --gib 8 --capability 8.6 -- COMMAND ...`."""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from virtual_card.card import GIB, MIB, Nvml, System, VirtualCard
from virtual_card.controls import Control
from virtual_card.machine import CUDA_VERSION, RunningMachine, VirtualMachine

USAGE_ERROR = 2


def parser() -> argparse.ArgumentParser:
    """The options: either a file that describes a machine, or one card repeated `--count` times."""
    options = argparse.ArgumentParser(
        prog="python -m virtual_card",
        description="Run a command on a machine with virtual NVIDIA cards. PyTorch allocates and launches; nothing is"
        " computed.",
    )
    options.add_argument("--machine", type=Path, help="a JSON file that describes the machine (see README.md)")
    options.add_argument("--gib", type=float, default=8.0, help="size on the box, GiB (default: 8)")
    options.add_argument("--capability", default="8.6", help="compute capability (default: 8.6)")
    options.add_argument("--reserve-mib", type=int, default=250, help="kept by the driver (default: 250)")
    options.add_argument("--context-mib", type=int, default=300, help="taken by each process's context (default: 300)")
    options.add_argument("--others-mib", type=int, default=0, help="held by other programs (default: 0)")
    options.add_argument("--slice-mib", type=int, default=0, help="size of the MIG slice (default: not cut)")
    options.add_argument("--unified", action="store_true", help="the card shares the main memory")
    options.add_argument("--count", type=int, default=1, help="number of such cards (default: 1)")
    options.add_argument("--system", choices=[*System], default=System.LINUX, help="whose driver it is")
    options.add_argument("--nvml", choices=[*Nvml], default=Nvml.WORKS, help="how NVML behaves")
    options.add_argument("--cuda-version", type=int, default=CUDA_VERSION, help="of the driver; 13000 is 13.0")
    options.add_argument("--sanitizer", choices=["address", "undefined", "thread"], default="", help="for developers")
    options.add_argument(
        "--set", action="append", default=[], metavar="CONTROL=VALUE",
        help="a fault: " + ", ".join(control.name.lower() for control in Control),
    )  # fmt: skip
    options.add_argument("command", nargs="+", help="the command, after --")
    return options


def described_machine(chosen: argparse.Namespace) -> VirtualMachine:
    """The machine that the options describe; raises `ValueError` for one that there cannot be."""
    if chosen.machine:
        try:
            return msgspec.json.decode(chosen.machine.read_bytes(), type=VirtualMachine)
        except (OSError, msgspec.MsgspecError) as error:
            raise ValueError(f"{chosen.machine}: {error}") from None
    major, _, minor = chosen.capability.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise ValueError(f"--capability must be like 8.6, got {chosen.capability!r}")
    card = VirtualCard(
        capability=(int(major), int(minor)),
        board_bytes=int(chosen.gib * GIB),
        reserve_bytes=chosen.reserve_mib * MIB,
        context_bytes=chosen.context_mib * MIB,
        others_bytes=chosen.others_mib * MIB,
        slice_bytes=chosen.slice_mib * MIB,
        unified=chosen.unified,
    )
    return VirtualMachine(
        cards=(card,) * chosen.count,
        system=System(chosen.system),
        nvml=Nvml(chosen.nvml),
        cuda_version=chosen.cuda_version,
    )


def control_of(text: str) -> tuple[Control, int]:
    """A control and its value; raises `ValueError` for what is none."""
    name, _, value = text.partition("=")
    try:
        return Control[name.upper()], int(value)
    except (KeyError, ValueError):
        raise ValueError(f"--set takes a control and a whole number, such as fail_launch=100, got {text!r}") from None


def main() -> int:
    """Run the command; its exit code is ours. A signal is passed on to it."""
    chosen = parser().parse_args()
    try:
        machine = described_machine(chosen)
        settings = [control_of(text) for text in chosen.set]
        running = RunningMachine(machine, chosen.sanitizer)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    with running:
        for control, value in settings:
            running.controls.set(control, value)
        child = subprocess.Popen(chosen.command, env=running.environ())  # noqa: S603 the person's own command
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda caught, _: child.send_signal(caught))
        code = child.wait()
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
