"""Builds the library for the PyTorch of this interpreter: `python -m virtual_card.build`, or `make virtual-card`.

`library/*.cpp` and the functions that are not written become `libvirtualcard.so`. Each name that PyTorch's libraries
need is a small library beside it that only points there. Needs g++ and binutils, and nothing of NVIDIA's.
"""

import argparse
import hashlib
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from virtual_card.imports import Imports, output, read_imports
from virtual_card.stubs import stub_source

ROOM = Path(__file__).parent
SOURCES = ROOM / "library"
BUILDS = ROOM / "build"
LIBRARY = "libvirtualcard.so"
STAMP = "built.sha256"
NVML = "libnvidia-ml.so.1"
CHECKS = ("layouts_check.cpp",)
FLAGS = ("-std=c++17", "-fPIC", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-pthread")

EXPORTS = "{ global: cu*; __cuda*; nv*; nccl*; virtualCard*; local: *; };\n"
"""The library is loaded before all others, so nothing of the C++ library's may come out of it."""

SANITIZERS = {
    "": ("-O1",),
    "address": ("-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer"),
    "undefined": ("-O1", "-g", "-fsanitize=undefined", "-fno-sanitize-recover=undefined", "-fno-sanitize=vptr"),
    "thread": ("-O1", "-g", "-fsanitize=thread"),
}


def build_folder(torch: str, sanitizer: str = "") -> Path:
    """Where the library for this version of PyTorch lies."""
    return BUILDS / ("torch-" + torch + (f"-{sanitizer}" if sanitizer else ""))


def build(imports: Imports, sanitizer: str = "") -> Path:
    """Build all of it, and return its folder."""
    folder = build_folder(imports.torch, sanitizer)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "nvml").mkdir(parents=True)
    compile_flags = (
        *FLAGS,
        *SANITIZERS[sanitizer],
        f"-DVIRTUAL_CARD_CUDA_MAJOR={imports.cuda_major}",
        f"-DVIRTUAL_CARD_CUDNN_VERSION={imports.cudnn_version}",
        f"-I{SOURCES}",
    )
    with TemporaryDirectory() as temporary:
        place = Path(temporary)

        def compiled(source: Path) -> Path:
            made = place / (source.stem + ".o")
            output("g++", *compile_flags, "-c", str(source), "-o", str(made))
            return made

        sources = [source for source in sorted(SOURCES.glob("*.cpp")) if source.name not in CHECKS]
        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compiled, sources))
        symbols = output("nm", "--defined-only", *map(str, objects))
        written = {line.split()[-1] for line in symbols.splitlines() if len(line.split()) == 3}
        stubs = place / "stubs.cpp"
        stubs.write_text(stub_source(imports.functions - written), encoding="utf-8")
        objects.append(compiled(stubs))
        _link(folder, imports, objects, SANITIZERS[sanitizer])
    (folder / STAMP).write_text(_digest(imports), encoding="utf-8")
    return folder


def is_current(folder: Path, imports: Imports) -> bool:
    """Whether that folder holds what `build` would make."""
    stamp = folder / STAMP
    return stamp.exists() and stamp.read_text(encoding="utf-8") == _digest(imports)


def _digest(imports: Imports) -> str:
    """Of everything that decides what is built."""
    digest = hashlib.sha256(msgspec.json.encode(imports, order="deterministic"))
    for source in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h"), ROOM / "build.py", ROOM / "stubs.py"]):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _link(folder: Path, imports: Imports, objects: list[Path], flags: tuple[str, ...]) -> None:
    """The library and the names need each other, so the library is linked once without them and once with them."""
    exports = folder / "exports.map"
    exports.write_text(EXPORTS, encoding="utf-8")
    link = ("g++", "-shared", "-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN", *flags)
    whole = (
        *link,
        f"-Wl,--version-script={exports}",
        f"-Wl,-soname,{LIBRARY}",
        *map(str, objects),
        "-o",
        str(folder / LIBRARY),
        "-ldl",
        "-pthread",
    )
    output(*whole)
    for name in imports.libraries:
        # PyTorch looks for "libcudart.so" among the files that are loaded, and where it finds one it opens NVIDIA's
        # own libraries by path. So the files have other names than the links that the loader follows.
        _point(link, folder, folder / name)
    _point((*link, "-Wl,-rpath,$ORIGIN/.."), folder, folder / "nvml" / NVML)
    names = [f"-l:{name}" for name in imports.libraries]
    output(*whole, f"-L{folder}", *names)


def _point(link: tuple[str, ...], folder: Path, name: Path) -> None:
    """A library of that name which holds nothing and needs ours."""
    file = name.parent / ("name-" + name.name.removeprefix("lib").replace(".so", ""))
    output(*link, "-nostdlib", f"-Wl,-soname,{name.name}", "-o", str(file), f"-L{folder}", f"-l:{LIBRARY}")
    name.symlink_to(file.name)


def main() -> int:
    """Build, and say what was built."""
    options = argparse.ArgumentParser(
        prog="python -m virtual_card.build", description="Build the virtual card's library."
    )
    options.add_argument("--sanitizer", choices=sorted(SANITIZERS), default="", help="check the library as it runs")
    options.add_argument("--if-changed", action="store_true", help="do nothing where the library is up to date")
    chosen = options.parse_args()
    try:
        imports = read_imports()
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    folder = build_folder(imports.torch, chosen.sanitizer)
    if chosen.if_changed and is_current(folder, imports):
        return 0
    build(imports, chosen.sanitizer)
    sys.stdout.write(f"{folder}: for PyTorch {imports.torch}, {len(imports.functions)} functions imported\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
