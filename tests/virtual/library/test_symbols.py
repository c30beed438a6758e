"""What the library exports and imports: public functions and the C library, nothing private of NVIDIA's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.virtual.processes import SANITIZER
from virtual_card.build import CHECKS, LIBRARY, SOURCES, build_folder
from virtual_card.imports import NVIDIA, output, read_imports
from virtual_card.stubs import stub_source

PRIVATE = re.compile(r"ExportTable|integrity|cudart[A-Z]\w*Hidden|^__?cuda\w*(Internal|Private)", re.IGNORECASE)
"""cuGetExportTable hands out undocumented driver tables, and integrity answers come with them."""

LAUNCHED = {
    "__cudaGetKernel", "__cudaInitModule", "__cudaLaunchKernel", "__cudaPopCallConfiguration",
    "__cudaPushCallConfiguration", "__cudaRegisterFatBinary", "__cudaRegisterFatBinaryEnd", "__cudaRegisterFunction",
    "__cudaRegisterVar", "__cudaUnregisterFatBinary",
}  # fmt: skip
"""What code that nvcc made calls; in the public header crt/host_runtime.h."""


LANGUAGE = {"libstdc++.so.6", "libgcc_s.so.1", "libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"}


@pytest.fixture(scope="module")
def library() -> Path:
    return build_folder(read_imports().torch, SANITIZER) / LIBRARY


def names(*command: str) -> set[str]:
    return {line.split()[-1].split("@")[0] for line in output(*command).splitlines()}


def test_it_exports_public_functions_only(library: Path) -> None:
    exported = names("nm", "--dynamic", "--defined-only", str(library))
    own = {name for name in exported if name.startswith("virtualCard")}
    assert own == {"virtualCardControls"}
    strange = {name for name in exported - own if not NVIDIA.match(name)}
    assert not strange
    assert not {name for name in exported if PRIVATE.search(name)}
    assert {name for name in exported if name.startswith("_")} <= LAUNCHED


@pytest.mark.skipif(bool(SANITIZER), reason="a sanitizer's own functions are imported")
def test_it_imports_nothing_but_the_language_s_libraries(library: Path) -> None:
    imported = names("nm", "--dynamic", "--undefined-only", str(library))
    assert not {name for name in imported if NVIDIA.match(name) or PRIVATE.search(name)}
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "--dynamic", str(library))))
    assert needed - set(read_imports().libraries) <= LANGUAGE


def test_everything_that_pytorch_imports_is_there(library: Path) -> None:
    assert read_imports().functions <= names("nm", "--dynamic", "--defined-only", str(library))


def test_its_source_speaks_of_no_private_table() -> None:
    for source in [*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]:
        assert not PRIVATE.search(source.read_text(encoding="utf-8")), source


def test_what_is_not_written_fails_and_says_its_name_but_for_arithmetic() -> None:
    failing = ("cufftExecC2C", "cudnnRNNForward", "cudaIpcGetMemHandle")
    source = stub_source({*failing, "cublasSaxpy_v2", "cublasGetStatusName"})
    for name in failing:
        assert re.search(rf'long {name}\(\) .*fail\("{name}", [1-9]', source)
    assert "long cublasSaxpy_v2() { return 0; }" in source
    assert 'long cublasGetStatusName() { return reinterpret_cast<long>("virtual card"); }' in source


def headers() -> Path | None:
    """A folder with the public headers of CUDA 13: a toolkit's, or those that come with Triton."""
    folders = [Path("/usr/local/cuda/include")]
    folders += [Path(place) / "triton/backends/nvidia/include" for place in sys.path]
    whole = (folder for folder in folders if (folder / "driver_types.h").exists() and (folder / "cuda.h").exists())
    return next(whole, None)


@pytest.mark.parametrize("check", CHECKS)
def test_structures_lie_as_in_nvidia_s_headers(check: str) -> None:
    folder = headers()
    if folder is None:
        pytest.skip("NVIDIA's public headers of CUDA 13 are not on this machine")
    command = ["g++", "-std=c++17", "-fsyntax-only", f"-I{folder}", str(SOURCES / check)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
