"""A command in a separate process, forked from one that has imported the libraries but none of our code.

Importing them takes longer than most of a small command. Timing tests start a new process instead.
"""

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Any
from unittest import mock

LIBRARIES = (
    "diffusers.models.autoencoders.autoencoder_oobleck",
    "diffusers.models.transformers.ace_step_transformer",
    "diffusers.pipelines.ace_step.modeling_ace_step",
    "torchao.quantization",
    "transformers.models.qwen3.modeling_qwen3",
)
"""One that is missing here is imported by every command."""


def run_module(tree: Path, module: str, arguments: Sequence[str], place: Path) -> tuple[int, str, str]:
    """Exit code, output and errors of `python -m module` in a tree; `place` is for what it writes.

    The environment is the caller's, and the hash seed another than the caller's.
    """
    process = _server().Process(target=_as_main, args=(tree, module, arguments, place, dict(os.environ)))
    process.start()
    process.join()
    code = process.exitcode
    process.close()
    assert code is not None
    return code, *((place / name).read_text(encoding="utf-8") for name in ("out", "err"))


@cache
def _server() -> Any:
    """Forks the processes. Its hash seed is 1 or 2, and not this process's, which is random unless it was set."""
    context = get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    with mock.patch.dict(os.environ, {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()
    return context


def _as_main(tree: Path, module: str, arguments: Sequence[str], place: Path, environment: Mapping[str, str]) -> None:
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        with (place / name).open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    ours = {"acestep", "calibrate", "ci"} & set(sys.modules)
    assert not ours, f"{ours} of another tree came along"
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    sys.argv = [module, *arguments]
    os.environ.clear()
    os.environ.update(environment)
    os.environ.pop("GITHUB_ACTIONS", None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
