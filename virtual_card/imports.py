"""What the installed PyTorch takes from NVIDIA's libraries: the names of the libraries and of their functions."""

import re
import subprocess
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import msgspec

NVIDIA = re.compile(
    r"(__cuda|cuda|cublas|cudnn|cufft|cufile|cusparse|cusolver|curand|cupti|nccl|nvshmem|nvrtc|nvJitLink|nvml|cu[A-Z])\w*$"
)
"""How the functions of NVIDIA's libraries are called."""

OWN = re.compile(r"(lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|gomp.*|torch|torch_.*|c10.*|shm|caffe2.*)\.so.*|ld-linux.*)$")
"""Libraries that are PyTorch's own or the system's."""

OPENED = ("libcuda.so.1",)
"""Opened by name at run time, by PyTorch and by what Triton compiles."""


OF_OTHERS = frozenset(("cublasHgemm", "cudaDeviceReset"))
"""What vLLM 0.32 needs besides what PyTorch imports, before it starts."""


class Imports(msgspec.Struct, frozen=True, kw_only=True):
    """The libraries by the names that the loader looks for, the functions, and what PyTorch was built for."""

    torch: str
    cuda_major: int
    cudnn_version: int
    libraries: tuple[str, ...]
    functions: frozenset[str]


def read_imports() -> Imports:
    """Those of the PyTorch that this interpreter would import. Raises `ValueError` for one without CUDA 13."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise ValueError("PyTorch is not installed here; run `make virtual-env`")
    folder = Path(spec.origin).parent / "lib"
    needed: set[str] = set()
    functions: set[str] = set()
    for library in sorted(folder.glob("*.so")):
        if not OWN.match(library.name):
            continue
        needed |= set(re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "--dynamic", "--wide", str(library))))
        functions |= {
            line.split()[-1].split("@")[0]
            for line in output("nm", "--dynamic", "--undefined-only", str(library)).splitlines()
        }
    libraries = {name for name in needed if not OWN.match(name)} | set(OPENED)
    if "libcudart.so.13" not in libraries:
        raise ValueError(
            f"PyTorch {distribution('torch').version} was not built for CUDA 13; install the one that"
            " virtual_card/requirements.txt names"
        )
    return Imports(
        torch=distribution("torch").version,
        cuda_major=13,
        cudnn_version=_cudnn_version(),
        libraries=tuple(sorted(libraries)),
        functions=frozenset(name for name in functions if NVIDIA.match(name)) | OF_OTHERS,
    )


def output(*command: str) -> str:
    """What a program of binutils prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 fixed programs


def _cudnn_version() -> int:
    """As `cudnnGetVersion` says it, of the release that PyTorch asks for: 92000 for 9.20.0."""
    for requirement in distribution("torch").requires or ():
        found = re.match(r"nvidia-cudnn-cu13==(\d+)\.(\d+)\.(\d+)", requirement)
        if found:
            major, minor, patch = map(int, found.groups())
            return major * 10_000 + minor * 100 + patch
    raise ValueError("PyTorch does not say which cuDNN it was built for")
