"""The page of results holds the rows of every run, and says when vLLM is not among them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.results import VLLM, main, page


def _run(*whats: str) -> dict[str, Any]:
    rows = [
        {"extra_info": {"what": what, "ours_seconds": 0.02, "theirs_seconds": 0.05, "ratio": 2.5}} for what in whats
    ]
    cpu = {"brand_raw": "a processor", "count": 2}
    return {"machine_info": {"cpu": cpu}, "datetime": "2026-11-29T10:00:00", "benchmarks": [*rows, {"extra_info": {}}]}


def test_a_page_has_the_rows_of_every_run_in_order() -> None:
    first, second = _run("a song", "a plan"), _run(f"a step, {VLLM} 1.2")
    made = page([first, second])
    rows = [line for line in made.splitlines() if line.endswith("| 20 ms | 50 ms | 2.50 |")]
    assert [row.split(" | ")[0] for row in rows] == ["| a song", "| a plan", f"| a step, {VLLM} 1.2"]
    assert "could not be installed" not in made


def test_a_page_without_vllm_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "run.json", tmp_path / "page.md"
    source.write_text(json.dumps(_run("a song")), encoding="utf-8")
    main([str(target), str(source)])
    assert "its CPU build could not be installed here" in target.read_text(encoding="utf-8")
