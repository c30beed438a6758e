"""The child of a probe on a real card: one capped run, one answer on its own pipe.

    python -m calibrate.probes.worker FD < order.json

Standard output belongs to libraries; the answer goes to file descriptor FD, once.
"""

import os
import sys
import time

import msgspec

from acestep.knobs import Knobs
from acestep.request import DecodePath
from calibrate.verdict import Verdict
from calibrate.workload import Workload


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a child is to run; `model` is what `acestep.models.load` takes."""

    knobs: Knobs
    workload: Workload
    cap_bytes: int
    model: str


class StagePeaks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the card's allocator counted in one stage."""

    name: str
    seconds: float
    allocated_bytes: int
    reserved_bytes: int


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the run ended; after an out-of-memory error the last stage is the one it happened in."""

    verdict: Verdict
    stages: tuple[StagePeaks, ...]
    decode_path: DecodePath
    problem: str


def run(order: Order) -> Answer:
    """Carry out an order on this process's card. Only `torch.OutOfMemoryError` is an answer; the rest is raised."""
    import torch

    from acestep.devices.cuda import CudaDevice
    from acestep.models.load import load
    from acestep.pipeline import Pipeline, prepare
    from calibrate.probes.prompt import request_of

    peaks: list[StagePeaks] = []

    class CountingCuda(CudaDevice):
        """The card, with a note of every stage's peaks, also of the one that fails."""

        def begin_stage(self, name: str) -> None:
            super().begin_stage(name)
            self.stage, self.started = name, time.perf_counter()

        def end_stage(self) -> tuple[int, int]:
            allocated, reserved = super().end_stage()
            peaks.append(
                StagePeaks(
                    name=self.stage,
                    seconds=time.perf_counter() - self.started,
                    allocated_bytes=allocated,
                    reserved_bytes=reserved,
                )
            )
            return allocated, reserved

    # Data-centre cards have an attention kernel that people's cards lack: it would answer for the wrong card.
    torch.backends.cuda.enable_cudnn_sdp(False)
    device = CountingCuda(order.cap_bytes)
    components = load(order.model, order.knobs.variant, dtype=device.dtype)
    prepare(components, order.knobs)
    try:
        pipeline = Pipeline(components, order.knobs, device)
        result = pipeline.generate(request_of(order.workload, components.tokenizer), strict=True)
    except torch.OutOfMemoryError as error:
        problem = str(error).splitlines()[0]
    else:
        return Answer(verdict=Verdict.FITS, stages=tuple(peaks), decode_path=result.decode_path, problem="")
    return Answer(verdict=Verdict.OOM, stages=tuple(peaks), decode_path=DecodePath.GPU, problem=problem)


def main() -> None:
    """Read an order from standard input and write the answer to the descriptor named on the command line."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    answer = run(order)
    with os.fdopen(int(sys.argv[1]), "wb") as reply:
        reply.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
