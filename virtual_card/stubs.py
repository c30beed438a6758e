"""Functions that PyTorch imports and the library does not have: each fails with its name. Pure."""

import re
from collections.abc import Iterable
from typing import Final

MATH: Final = re.compile(r"cublas[SDCZI]|cublasGemm|cublas(Get|Set)(Matrix|Vector)Async|cublasDotEx")
"""Arithmetic of cuBLAS: nothing computes on a virtual card, so it succeeds."""

TEXTS: Final = re.compile(r"(Error|Status)(String|Name)$|GetLastError$")
"""Functions that return a text."""

FAILURES: Final = {
    "cudnn": 3000,
    "cublas": 15,
    "cufft": 16,
    "cusparse": 10,
    "cusolver": 9,
    "curand": 103,
    "cupti": 27,
    "nccl": 5,
    "nvrtc": 11,
    "": 801,
}
"""What each library calls "not supported" (of NCCL, an invalid use; of NVRTC, an internal error)."""

HEAD: Final = """\
// Made by virtual_card/stubs.py from what the installed PyTorch imports.
#include <atomic>
#include <cstdio>
#include "api.h"

namespace {
long fail(const char *name, long error, std::atomic<bool> &told) {
    if (!told.exchange(true)) std::fprintf(stderr, "virtual card: %s is not there\\n", name);
    return error;
}
}  // namespace
"""


def stub_source(functions: Iterable[str]) -> str:
    """C++ for functions that are not written. Each prints its name once."""
    return HEAD + "".join(_stub(name) for name in sorted(functions))


def _stub(name: str) -> str:
    if TEXTS.search(name):
        body = 'return reinterpret_cast<long>("virtual card");'
    elif MATH.match(name):
        body = "return 0;"
    else:
        error = next(error for prefix, error in FAILURES.items() if name.startswith(prefix))
        body = f'static std::atomic<bool> told{{false}}; return fail("{name}", {error}, told);'
    return f"EXPORT long {name}() {{ {body} }}\n"
