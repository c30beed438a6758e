"""Extras that have no solution together are noticed; `make test-extras` resolves every combination."""

from pathlib import Path

from tests.extras import resolve


def test_extras_that_cannot_be_together_are_noticed(tmp_path: Path) -> None:
    """What was published once: a vLLM that wants a torch above our bound."""
    old = tmp_path / "pyproject.toml"
    old.write_text(
        '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\n'
        'dependencies = ["torch>=2.11,<2.14"]\n[project.optional-dependencies]\nvllm = ["vllm==0.33.0"]\n',
        encoding="utf-8",
    )
    done = resolve(("vllm",), old)
    assert done.returncode == 1
    assert "torch==2.14.0" in done.stderr
