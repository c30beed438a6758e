"""Starts vLLM's engine on the card here, with dummy weights and our options, and compares what it takes with our rules.

python -m tools.vllm_footprint --lm 0.6B [--rows 2] [--longest 6000] [--eager]

Prints one line of JSON, in bytes: what the allocator and the driver gave, and `acestep.lm.backends.vllm_memory`. Needs
vLLM's CUDA build; exit code 4 without a card. On a virtual card (virtual_card/README.md) kernels compute nothing, and
their memory is real. Without `--eager`, vLLM compiles and captures graphs where the card has room, and takes longer.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import torch

from acestep.checkpoints.architecture import QwenArchitecture
from acestep.checkpoints.catalog import LM_ARCHITECTURES, lm_checkpoint
from acestep.devices.accelerator import CudaDevice
from acestep.errors import Exit
from acestep.knobs import LM_MODELS
from acestep.lm.backends import vllm_engine
from acestep.lm.backends.vllm_memory import pool_of, vllm_footprint
from acestep.lm.backends.vllm_rows import ActiveDrafts
from acestep.lm.sampling import Sampler

MODEL = {"model_type": "qwen3", "hidden_act": "silu", "tie_word_embeddings": True, "torch_dtype": "bfloat16"}
"""What vLLM asks of a configuration besides the sizes."""


def started(architecture: QwenArchitecture, rows: int, longest: int, *, eager: bool) -> dict[str, int]:
    """Return what an engine for `rows` sequences of `longest` tokens takes when it has started, and what is reckoned.

    The process keeps the engine; raises any error of vLLM.
    """
    device, pool = CudaDevice(), pool_of(rows, longest)
    before = _used()
    with TemporaryDirectory() as place:
        config = MODEL | msgspec.to_builtins(architecture)
        (Path(place) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        more = {"load_format": "dummy"} | ({"enforce_eager": True} if eager else {})
        engine = vllm_engine.start(Path(place), device, pool, ActiveDrafts(Sampler(device)), more)
    runner = engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    weights = sum(tensor.nbytes for tensor in runner.model.parameters())
    reckoned = vllm_footprint(architecture, pool, weight_bytes=weights, itemsize=device.dtype.itemsize)
    return {
        "allocated_bytes": device.allocated_bytes(),
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "taken_of_the_card_bytes": _used() - before,
        "reckoned_weight_bytes": reckoned.weight_bytes,
        "reckoned_cache_bytes": reckoned.cache_bytes,
        "reckoned_peak_bytes": reckoned.peak_bytes,
    }


def _used() -> int:
    free, total = torch.cuda.mem_get_info()
    return total - free


def main() -> int:
    """Print the comparison."""
    options = argparse.ArgumentParser(prog="python -m tools.vllm_footprint", description="vLLM's memory on this card.")
    options.add_argument("--lm", choices=LM_MODELS, required=True, help="whose size the engine has")
    options.add_argument("--rows", type=int, default=2, help="sequences at once (default: 2)")
    options.add_argument("--longest", type=int, default=6000, help="tokens of each (default: 6000)")
    options.add_argument("--eager", action="store_true", help="compile nothing and capture no graphs")
    chosen = options.parse_args()
    if not torch.cuda.is_available():
        sys.stderr.write("there is no CUDA card here; run it on one, or on a virtual card\n")
        return Exit.NOT_MEASURED
    architecture = LM_ARCHITECTURES[lm_checkpoint(chosen.lm).id]
    print(json.dumps(started(architecture, chosen.rows, chosen.longest, eager=chosen.eager)))  # noqa: T201
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
