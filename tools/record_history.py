"""Records what PyTorch's allocator does in one short generation on this card, and replays it in our model.

python -m tools.record_history -o FILE [--model dummy] [--offload cpu+dit] [--duration 30]

FILE is packed JSON for `calibrate.probes.simulated.history`. Exit code 1 if the model differs, 4 without a card.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from acestep.checkpoints.build import build
from acestep.checkpoints.catalog import SIZES
from acestep.devices.accelerator import CudaDevice
from acestep.engine.pipeline import Pipeline, prepare
from acestep.errors import Exit
from acestep.knobs import Knobs, Offload
from acestep.request import Request
from calibrate.probes.simulated.history import replay_history
from calibrate.probes.simulated.recorded import History, history_of, store_history


def record(model: str, offload: Offload, duration_s: float) -> History:
    """Return the history of two steps on a card on which this process has no memory yet."""
    torch.cuda.memory._record_memory_history(context=None)  # noqa: SLF001 there is no public way
    device = CudaDevice()
    knobs = Knobs(offload=offload)
    components = build(SIZES[model], dtype=device.dtype)
    prepare(components, knobs)
    pipeline = Pipeline(components, knobs, device)
    request = Request(caption="slow piano", lyrics="la la", duration_s=duration_s, seed=3, steps=2)
    pipeline.generate(request, strict=True)
    snapshot = torch.cuda.memory._snapshot()  # noqa: SLF001
    torch.cuda.memory._record_memory_history(None)  # noqa: SLF001
    return history_of(snapshot, torch.cuda.current_device())


def main(arguments: Sequence[str] | None = None) -> int:
    """Record, save, replay, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", choices=sorted(SIZES), default="dummy")
    parser.add_argument("--offload", type=Offload, choices=list(Offload), default=Offload.CPU_DIT)
    parser.add_argument("--duration", type=float, default=30.0, metavar="SECONDS")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stderr.write("no CUDA card was found, so no history can be recorded\n")
        return Exit.NOT_MEASURED
    history = record(options.model, options.offload, options.duration)
    store_history(history, options.output)
    found = replay_history(history)
    sys.stdout.write(
        f"{found.entries} entries, {found.allocations} allocations, {found.segments} segments:"
        f" {found.difference or 'the model did the same to the byte'}\n"
    )
    return Exit.OK if found.agrees else Exit.REGRESSED


if __name__ == "__main__":
    sys.exit(main())
