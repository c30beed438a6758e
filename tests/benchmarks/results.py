"""The page of results from the JSON of runs: `python -m tests.benchmarks.results PAGE.md RUN.json ...`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch

from acestep.units import mib

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


VLLM = "against vLLM"
"""What a row says that compares with vLLM, in an environment of its own and so in a run of its own."""


def page(runs: Sequence[dict[str, Any]]) -> str:
    """Markdown: the machine, then one row a benchmark of all runs."""
    cpu = runs[0]["machine_info"]["cpu"]
    told = [info for run in runs for info in (made["extra_info"] for made in run["benchmarks"]) if "what" in info]
    rows = [
        f"| {info['what']} | {_time(info['ours_seconds'])} | {_time(info.get('theirs_seconds'))} | {_ratio(info)} |"
        for info in told
    ]
    memory = [
        f"| {info['what']} | {mib(info['ours_bytes'])} | {mib(info['theirs_bytes'])}"
        f" | {info['ours_bytes'] / info['theirs_bytes']:.2f} |"
        for info in told
        if "ours_bytes" in info
    ]
    return "\n".join(
        [
            "# Speed on a CPU",
            "",
            f"{cpu['brand_raw']}, {cpu['count']} cores, one thread; torch {torch.__version__}, diffusers"
            f" {diffusers.__version__}, {runs[0]['datetime'][:10]}. `make bench` writes this page.",
            "",
            "Times are CPU seconds. Both sides run in turns in one process, and the best round of each counts. The"
            " other side is the library's own forward with the same weights, or what the row says.",
            "",
            "| what | ours | theirs | times as fast |",
            "|---|---:|---:|---:|",
            *rows,
            "",
            _about_vllm(told),
            "",
            "Every other layer of the transformer attends to the whole song, which costs both sides the same. The"
            " weights of ours are packed, as they are where a CPU with AVX2 computes in float32. The floor of a step is"
            " its products and its full attention alone, by our kernels, and that of songs the time that ours spends in"
            " products, attention and convolutions. On a CPU the library's masked attention is fused too; on a card"
            " older than Hopper it is not, and materialises the scores.",
            "",
            "The most main memory of a run, above what the process holds before it: the weights of both sides.",
            "",
            "| what | ours | theirs | ours of theirs |",
            "|---|---:|---:|---:|",
            *memory,
            "",
        ]
    )


def _about_vllm(told: Sequence[dict[str, Any]]) -> str:
    if not any(VLLM in info["what"] for info in told):
        return "No row compares a step of a language model with vLLM's: its CPU build could not be installed here."
    return (
        "vLLM's CPU build runs as it is, without our guidance and sampling: it writes two sequences for a guided song,"
        " which it does not guide, and draws from all tokens, which is its fastest way to draw."
    )


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    scale, unit = next(((s, u) for s, u in UNITS if seconds >= s), UNITS[-1])
    return f"{seconds / scale:.3g} {unit}"


def _ratio(info: dict[str, Any]) -> str:
    return f"{info['ratio']:.2f}" if "ratio" in info else ""


def main(arguments: Sequence[str]) -> None:
    """Write the page of the runs: `arguments` are the page's path, then that of each run."""
    target, *sources = map(Path, arguments)
    target.write_text(page([json.loads(run.read_text(encoding="utf-8")) for run in sources]), encoding="utf-8")
    print(target.read_text(encoding="utf-8"))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
