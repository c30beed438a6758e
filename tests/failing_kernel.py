"""A Triton kernel that fails, in the place of one of ours."""

import sys
from types import ModuleType

import pytest


def fails_with(problem: Exception, module: str, launch: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the function `launch` of `module`, which imports Triton, raise `problem`; return its tries."""
    tries: list[int] = []

    def fail(*_: object) -> None:
        tries.append(1)
        raise problem

    kernels = ModuleType(module)
    setattr(kernels, launch, fail)
    monkeypatch.setitem(sys.modules, module, kernels)
    return tries
