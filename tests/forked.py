"""A tree's own command in a separate process, forked from one that has imported the libraries but none of our code.

Importing them takes longer than most of a small command. Timing tests start a new process instead.
"""

import os
import runpy
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

LIBRARIES = (
    "diffusers.models.autoencoders.autoencoder_oobleck",
    "diffusers.models.transformers.ace_step_transformer",
    "diffusers.pipelines.ace_step.modeling_ace_step",
    "torchao.quantization",
    "transformers.models.qwen3.modeling_qwen3",
)
"""One that is missing here is imported by every command."""


def run_module(tree: Path, module: str, arguments: Sequence[str], place: Path) -> tuple[int, str, str]:
    """Exit code, output and errors of `python -m module` in a tree; `place` is for what it writes."""
    context = get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    process = context.Process(target=_as_main, args=(tree, module, arguments, place))
    process.start()
    process.join()
    code = process.exitcode
    process.close()
    assert code is not None
    return code, *((place / name).read_text(encoding="utf-8") for name in ("out", "err"))


def _as_main(tree: Path, module: str, arguments: Sequence[str], place: Path) -> None:
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        with (place / name).open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    ours = {"acestep", "calibrate", "ci"} & set(sys.modules)
    assert not ours, f"{ours} of another tree came along"
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    sys.argv = [module, *arguments]
    os.environ.pop("GITHUB_ACTIONS", None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
