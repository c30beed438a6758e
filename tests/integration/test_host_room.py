"""Weights that do not fit into main memory are refused in a sentence, before any of them is loaded."""

import json
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from acestep.checkpoints import catalog
from acestep.checkpoints.build import build
from acestep.checkpoints.footprint import footprint, lm_footprint
from acestep.checkpoints.host_memory import BESIDE_BYTES, require_room
from acestep.checkpoints.lm import build_lm, load_lm
from acestep.checkpoints.load import load
from acestep.devices.cpu import cpu_dtype
from acestep.errors import Exit, HostMemoryError, RunFailedError
from acestep.hardware.host import HostMemory, host_memory
from acestep.knobs import Knobs, Quantization, Variant
from acestep.limits.plan import Overrides
from acestep.ui.studio import Studio
from acestep.units import GIB
from calibrate.probes.engine import PipelineEngine, open_probe_lm
from calibrate.probes.messages import Order, Ready, Refused, Said, setup_for
from calibrate.probes.worker import serve_probes
from calibrate.workload import Workload
from tests.acestep_command import Command, command
from tests.checkpoints import PARTS, write_diffusers, write_original
from tests.tiny_planner import write_planner

__all__ = ["command"]

DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(scope="module")
def tiny():
    return build("tiny", dtype=torch.float32)


@pytest.fixture(scope="module")
def folders(tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("weights")
    return {
        "original": write_original(tiny, root, "acestep-v15-turbo", shards=2),
        "diffusers": write_diffusers(tiny, root / "diffusers"),
    }


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[float], None]:
    """Let this process be in a control group of some GiB, on a machine of 64, and forget all loading."""
    machine = SimpleNamespace(
        virtual_memory=lambda: SimpleNamespace(total=64 * GIB, available=60 * GIB),
        swap_memory=lambda: SimpleNamespace(free=0),
    )

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("nothing may be loaded")

    def limit(size_gib: float) -> None:
        group = tmp_path / "root/sys/fs/cgroup/memory/docker"
        group.mkdir(parents=True)
        (group / "memory.limit_in_bytes").write_text(f"{int(size_gib * GIB)}\n")
        own = tmp_path / "root/proc/self"
        own.mkdir(parents=True)
        (own / "cgroup").write_text("5:memory:/docker\n")
        look = partial(host_memory, root=tmp_path / "root", machine=machine, system="linux")
        monkeypatch.setattr("acestep.checkpoints.host_memory.host_memory", look)
        for name in ("acestep.checkpoints.build.empty", "acestep.checkpoints.lm.empty"):
            monkeypatch.setattr(name, refuse)

    return limit


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_what_is_converted_counts_in_full_and_views_of_files_do_not(layout: str, tiny, folders) -> None:
    sizes = {part: sum(t.numel() for t in getattr(tiny, part).state_dict().values()) for part in PARTS}
    silence = tiny.condition_encoder.silence_latent.numel() if layout == "original" else 0  # its file is no safetensors
    model = str(folders[layout])
    converted, viewed = (footprint(model, None, folders[layout].parent, dtype, None) for dtype in DTYPES[::-1])
    assert converted == 2 * (sum(sizes.values()) - silence)
    assert viewed == 4 * sizes["vae"]


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_quantized_weights_are_new_ones(layout: str, folders) -> None:
    """A view of a file becomes memory in one byte a number; converted weights are smaller in the end than before."""
    model, root = str(folders[layout]), folders[layout].parent
    linear = footprint(model, None, root, torch.float32, Quantization.INT8) - footprint(
        model, None, root, torch.float32, None
    )
    components = load(model, dtype=torch.float32, checkpoints_dir=root)
    modules = [m for m in components.transformer.modules() if isinstance(m, torch.nn.Linear)]
    assert linear == sum(module.weight.numel() for module in modules)
    assert footprint(model, None, root, torch.bfloat16, Quantization.INT8) == footprint(
        model, None, root, torch.bfloat16, None
    )


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_weights_that_adapters_change_are_new_ones(layout: str, tiny, folders) -> None:
    """At most those of the transformer; a converted weight is replaced by the changed one."""

    def taken(values: int, dtype: torch.dtype, quantization: Quantization | None = None) -> int:
        root = folders[layout].parent
        return footprint(str(folders[layout]), None, root, dtype, quantization, fused_values=values)

    whole = sum(t.numel() for t in tiny.transformer.state_dict().values())
    assert taken(1_000, torch.float32) - taken(0, torch.float32) == 4_000
    assert taken(10**12, torch.float32) - taken(0, torch.float32) == 4 * whole
    assert taken(1_000, torch.bfloat16) == taken(0, torch.bfloat16)
    # In the end they are quantized like the others.
    assert taken(1_000, torch.float32, Quantization.INT8) == taken(0, torch.float32, Quantization.INT8)
    assert taken(10**12, torch.float32, Quantization.INT8) == taken(10**12, torch.float32)


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_matrices_that_are_packed_are_new_ones(layout: str, folders) -> None:
    """A converted one is replaced by the packed one; one that is a view of a file becomes memory of the process."""

    def taken(packed: bool, dtype: torch.dtype) -> int:
        return footprint(str(folders[layout]), None, folders[layout].parent, dtype, None, packed=packed)

    components = load(str(folders[layout]), dtype=torch.float32, checkpoints_dir=folders[layout].parent)
    linears = [m for part in components.modules().values() for m in part.modules() if isinstance(m, torch.nn.Linear)]
    assert taken(True, torch.float32) - taken(False, torch.float32) == 4 * sum(m.weight.numel() for m in linears)
    assert taken(True, torch.bfloat16) == taken(False, torch.bfloat16)


@pytest.mark.parametrize("quantization", [None, Quantization.INT8])
def test_matrices_of_a_language_model_that_are_packed_are_new_ones(
    quantization: Quantization | None, tmp_path: Path
) -> None:
    """But for the embedding. Quantized ones are not packed."""
    folder = str(tmp_path / "planner")
    write_planner(tmp_path / "planner")
    model = load_lm(folder, dtype=torch.float32).module.model
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    views = 0
    for dtype in DTYPES:
        viewed, packed = (lm_footprint(folder, tmp_path, dtype, quantization, packed=it) for it in (False, True))
        if quantization is None and not viewed:
            views += 1
            assert packed == sum(m.weight.numel() for m in linears) * dtype.itemsize
        else:
            assert packed == viewed
    assert views == (quantization is None)


@pytest.mark.parametrize("variant", [Variant.TURBO, Variant.XL_SFT])
def test_dummy_weights_count_as_what_is_built(variant: Variant) -> None:
    built = build("dummy", variant, dtype=torch.bfloat16, materialise="meta")
    real = sum(t.numel() for part in PARTS for t in getattr(built, part).state_dict().values())
    assert footprint("dummy", variant, Path(), torch.float32, None) == pytest.approx(4 * real, rel=1e-3)


@pytest.mark.parametrize("lm", catalog.LM_ARCHITECTURES)
def test_dummy_language_models_count_as_what_is_built(lm: str) -> None:
    built = build_lm("dummy", lm, dtype=torch.bfloat16, materialise="meta")
    real = sum(t.numel() for t in built.module.model.state_dict().values())
    assert lm_footprint(f"dummy:{lm}", Path(), torch.bfloat16, None) == 2 * real


def test_toys_always_fit() -> None:
    assert (
        footprint("tiny", None, Path(), torch.float32, None) == lm_footprint("tiny", Path(), torch.float32, None) == 0
    )
    require_room(0, "Nothing", "", lambda: HostMemory(total_bytes=0, available_bytes=0))


def test_room_is_what_is_free_and_what_can_be_swapped() -> None:
    def look(free: int, swap: int) -> Callable[[], HostMemory]:
        return lambda: HostMemory(total_bytes=8 * GIB, available_bytes=free, swap_bytes=swap)

    needed = 3 * GIB
    require_room(needed, "They", "wait", look(needed + BESIDE_BYTES, 0))
    require_room(needed, "They", "wait", look(GIB, 2 * GIB + BESIDE_BYTES))
    with pytest.raises(RunFailedError, match=r"They need 3\.00 GiB.*close other programs, or wait"):
        require_room(needed, "They", "wait", look(needed + BESIDE_BYTES - 1, 0))
    with pytest.raises(RunFailedError, match=r"They need 9\.00 GiB.*give this machine more memory"):
        require_room(9 * GIB, "They", "wait", look(8 * GIB, 0))


def test_memory_that_the_collector_gives_back_counts() -> None:
    looks = iter([GIB, 2 * GIB])
    require_room(GIB, "They", "wait", lambda: HostMemory(total_bytes=8 * GIB, available_bytes=next(looks)))


@pytest.mark.parametrize("think", ["--no-think", "--think"])
def test_generate_says_what_is_missing_and_ends_with_5(
    think: str, limited: Callable[[float], None], command: Command, tmp_path: Path
) -> None:
    limited(2)
    ended = command("generate", "--model", "dummy", "--caption", "x", think, "--json", "--out", str(tmp_path / "out"))
    assert ended.code == Exit.RUN_FAILED
    problem = json.loads(ended.out)["error"]["message"]
    weights = "5.88 GiB" if cpu_dtype() is torch.bfloat16 else "11.77 GiB"
    for said in ("weights of dummy", weights, "2.00 GiB", "/sys/fs/cgroup/memory/docker", "more memory"):
        assert said in problem


def test_generate_counts_the_language_model_that_was_asked_for(
    limited: Callable[[float], None], command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limited(13)
    monkeypatch.setenv("MAX_CUDA_VRAM", "24")
    ended = command("generate", "--model", "dummy", "--caption", "x", "--think", "--out", str(tmp_path / "out"))
    assert ended.code == Exit.RUN_FAILED
    assert "of the language model dummy:" in ended.err
    assert "--no-think" in ended.err


def test_thinking_that_was_not_asked_for_is_left_out(
    limited: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny = build("tiny", dtype=torch.float32)
    limited(13)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("MAX_CUDA_VRAM", "24")
    monkeypatch.setattr("acestep.checkpoints.load.build", lambda *_, **__: tiny)
    said: list[str] = []
    studio = Studio("dummy", Overrides(), tmp_path)
    try:
        studio.preload(said.append)
    finally:
        studio.close()
    assert any(sentence.startswith("The song is made without planning: The weights of dummy and") for sentence in said)


@pytest.mark.parametrize("words", [("understand",), ("sample", "a song"), ("format", "--caption", "x")])
def test_commands_of_the_language_model_refuse_as_well(
    words: tuple[str, ...], limited: Callable[[float], None], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(2)
    monkeypatch.setenv("MAX_CUDA_VRAM", "24")
    ended = command(*words, "--model", "dummy", "--lm", "4B")
    assert ended.code == Exit.RUN_FAILED
    assert "weights of the language model dummy:" in ended.err
    assert "smaller language model with --lm" in ended.err


def test_the_page_says_it(limited: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limited(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    studio = Studio("dummy", Overrides(), tmp_path)
    try:
        with pytest.raises(HostMemoryError, match="weights of dummy need"):
            studio.preload(lambda _: None)
    finally:
        studio.close()


class Card:
    """A card that a child opens and that is never filled."""

    def open(self) -> torch.dtype:
        return torch.bfloat16

    def settings(self) -> str:
        return ""

    def outside_bytes(self) -> int:
        return 0


def _said(engine: Any, *messages: object) -> list[object]:
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b"".join(msgspec.json.encode(message) + b"\n" for message in messages))
        serve_probes(theirs, engine)
        lines = ours.makefile("rb").readlines()
    return [msgspec.json.decode(line, type=Said) for line in lines]


@pytest.mark.parametrize("lm", [None, "1.7B"])
def test_a_child_of_calibrate_refuses_what_is_no_answer_about_the_card(
    lm: str | None, limited: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prober makes a `NotMeasuredError` of it, exit code 4; a verdict would be written into the record."""
    monkeypatch.setattr("calibrate.probes.worker.die_with", lambda channel: None)
    knobs = Knobs(lm=lm)
    if lm is None:
        limited(2)
        said = _said(PipelineEngine(Card()), setup_for(knobs, "dummy"))
    else:

        class Loaded(PipelineEngine):
            def load(self, setup: Any) -> str:
                limited(2)
                return ""

            def run(self, order: Order, alive: Any) -> Any:
                open_probe_lm(
                    "dummy",
                    order.knobs,
                    SimpleNamespace(dtype=torch.bfloat16, shares_host_memory=False, has_triton=False),
                )

        order = Order(number=1, knobs=knobs, workload=Workload(batch=1, duration_s=10, with_lm=True), cap_bytes=GIB)
        ready, *said = _said(Loaded(Card()), setup_for(knobs, "dummy"), order)
        assert isinstance(ready, Ready)
    (refused,) = said
    assert isinstance(refused, Refused)
    assert "GiB of main memory" in refused.problem
