import gc
import tomllib
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acestep.devices.cpu import CpuDevice
from acestep.knobs import Backend as Library
from acestep.lm.backends import open as opening
from acestep.lm.backends.open import Opener
from acestep.lm.backends.vllm_memory import pool_of
from tests.command_lines import ROOT
from tests.some import first_of

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

POOL = pool_of(rows=2, longest=100)


class Kept:
    """A backend that records its calls."""

    def __init__(self, *given: Any) -> None:
        self.heard: list[str] = []

    def write(self, jobs: Any, written: Any) -> list[tuple[int, ...]]:
        self.heard.append("write")
        return [(7,)]

    def cache_bytes(self, jobs: Any) -> int:
        return 9

    def rehearse(self, jobs: Any) -> None:
        self.heard.append("rehearse")

    def rest(self) -> None:
        self.heard.append("rest")

    def close(self) -> None:
        self.heard.append("close")


class HalfMade:
    """Something large that a start-up had made before it failed."""


class Emptied(CpuDevice):
    """A CPU that counts how often its cache was emptied, and whether what was half made was gone by then."""

    def __init__(self, half_made: list[weakref.ref[HalfMade]]) -> None:
        self.half_made = half_made
        self.gone: list[bool] = []

    def empty_cache(self) -> None:
        self.gone.append(all(made() is None for made in self.half_made))


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def no_cyclic_help() -> Iterator[None]:
    """Collections only where the code asks for them, so that a missing one shows."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def opener(library: Library, warned: list[str]) -> Opener:
    return Opener(library, Path("lm"), POOL, warned.append)


@pytest.mark.parametrize("library", [Library.VLLM, Library.MLX])
@pytest.mark.parametrize(
    "failure",
    first_of([RuntimeError("no such kernel\nand more"), MemoryError("CUDA out of memory"), ValueError()], 1),
    ids=repr,
)
def test_a_failed_start_frees_memory_warns_once_and_falls_back_to_pytorch(
    library: Library, failure: Exception, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    half_made: list[weakref.ref[HalfMade]] = []
    tries: list[int] = []

    class Failing:
        def __init__(self, *given: Any) -> None:
            tries.append(1)
            self.part = HalfMade()
            self.itself = self
            half_made.append(weakref.ref(self.part))
            raise failure

    monkeypatch.setattr(opening, "VllmBackend" if library is Library.VLLM else "MlxBackend", Failing)
    device, pt = Emptied(half_made), Kept()
    opens = opener(library, warned)
    assert opens.open(device, lambda: pt) is pt
    assert opens.open(device, lambda: pt) is pt
    assert len(tries) == len(warned) == len(device.gone) == 1
    assert "PyTorch runs it instead" in warned[0]
    assert (str(failure).split("\n")[0] or "ValueError") in warned[0]
    assert "and more" not in warned[0]


def test_half_made_objects_are_freed_before_pytorch_starts(warned: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    half_made: list[weakref.ref[HalfMade]] = []

    class Failing:
        def __init__(self, *given: Any) -> None:
            self.part, self.itself = HalfMade(), self
            half_made.append(weakref.ref(self.part))
            raise RuntimeError("no such kernel")

    monkeypatch.setattr(opening, "VllmBackend", Failing)
    device = Emptied(half_made)
    opener(Library.VLLM, warned).open(device, Kept)
    assert device.gone == [True]


def test_a_library_that_is_not_installed_is_named(warned: list[str]) -> None:
    opener(Library.MLX, warned).open(CpuDevice(), Kept)
    assert warned[0].startswith("MLX cannot run the language model here (")


@pytest.mark.parametrize(
    ("module", "system", "words"),
    [
        ("vllm", "linux", "pip install 'acestep-calibrated[vllm]'"),
        ("mlx_lm", "darwin", "pip install 'acestep-calibrated[mlx]'"),
        ("mlx", "darwin", "pip install 'acestep-calibrated[mlx]'"),
        ("vllm", "win32", "vLLM runs only on Linux"),
        ("mlx", "linux", "MLX runs only on macOS"),
    ],
)
def test_a_missing_extra_says_what_to_type_where_it_exists(module: str, system: str, words: str) -> None:
    assert opening._EXTRAS[module] in EXTRAS
    assert words in opening._why_missing(module, system)


def test_a_library_that_is_missing_by_name_has_its_remedy(warned: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        def start(*_: Any) -> None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        return start

    for name in ("vllm", "a_part_of_vllm"):
        monkeypatch.setattr(opening, "VllmBackend", missing(name))
        opener(Library.VLLM, warned).open(CpuDevice(), Kept)
    assert "vllm is not installed: pip" in warned[0] or "vLLM runs only on Linux" in warned[0]
    assert "a_part_of_vllm is not installed)" in warned[1]


def test_pytorch_is_opened_without_a_warning(warned: list[str]) -> None:
    pt = Kept()
    assert opener(Library.PT, warned).open(CpuDevice(), lambda: pt) is pt
    assert not warned


def test_a_library_is_started_once_rests_between_uses_and_is_closed_at_the_end(
    warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Kept] = []

    def start(*given: Any) -> Kept:
        started.append(Kept())
        return started[0]

    monkeypatch.setattr(opening, "VllmBackend", start)
    opens = opener(Library.VLLM, warned)
    for _ in range(2):
        backend = opens.open(CpuDevice(), Kept)
        assert backend.write([], lambda step, most: None) == [(7,)]
        assert backend.cache_bytes([]) == 9
        backend.close()
    opens.close()
    opens.close()
    assert [kept.heard for kept in started] == [["write", "rest", "write", "rest", "close"]]
    assert not warned
