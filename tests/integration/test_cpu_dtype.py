"""The CPU computes in bfloat16 where it has instructions for it, in float32 elsewhere, and a song hardly differs."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from acestep.checkpoints.build import build
from acestep.checkpoints.components import Components
from acestep.devices.cpu import CpuDevice, cpu_dtype
from acestep.devices.open import open_device
from acestep.engine import kept_model
from acestep.engine import service as services
from acestep.engine.service import Service
from acestep.hardware.card import CPU, Card, CardKind
from acestep.hardware.processor import BFLOAT16_FLAG, multiplies_bfloat16
from acestep.knobs import Knobs, Variant
from acestep.limits.capabilities import AMPERE, dtype_name
from acestep.limits.machine import plan_of_card
from acestep.limits.plan import AS_THE_TIER_SAYS, exact
from acestep.lm.language import Language
from acestep.request import Request

SONG = Request(caption="rain", duration_s=1, seed=4, steps=1)
"""Its one step is at the time 1, which every type holds exactly; the time of a step has the type of the model."""


def _answer(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)


@pytest.mark.parametrize(("able", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_device_computes_in_what_the_processor_can_multiply(
    able: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answer(monkeypatch, able)
    device, card = open_device(CPU)
    assert (device.dtype, card, cpu_dtype()) == (dtype, CPU, dtype)


def test_linux_and_pytorch_say_the_same_about_this_processor() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux lists what a processor can do in a file")
    assert multiplies_bfloat16() is (cpu_dtype() is torch.bfloat16)


@pytest.mark.parametrize(
    ("text", "able"),
    [
        (f"processor\t: 0\nflags\t\t: fpu {BFLOAT16_FLAG} amx_bf16\n", True),
        (f"model name\t: {BFLOAT16_FLAG}\nflags\t\t: fpu avx512f\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", False),
        ("", None),
        (None, None),
    ],
    ids=["with", "without", "Arm", "empty", "no file"],
)
def test_what_the_processor_can_do_is_read_from_its_flags(text: str | None, able: bool | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(text)
    assert multiplies_bfloat16(tmp_path) is able


def test_a_plan_says_in_which_type_songs_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for able, said in ((True, "bfloat16"), (False, "float32"), (None, None)):
        monkeypatch.setattr("acestep.limits.machine.multiplies_bfloat16", lambda able=able: able)
        assert plan_of_card(AS_THE_TIER_SAYS, CPU).dtype == said
    turing, ampere = (Card(kind=CardKind.CUDA, name="", capability=found) for found in ((7, 5), AMPERE))
    for card, variant, said in (
        (turing, Variant.TURBO, "float16"),
        (turing, Variant.BASE, "float32"),
        (ampere, Variant.TURBO, "bfloat16"),
        (Card(kind=CardKind.MPS, name=""), Variant.TURBO, "float32"),
    ):
        assert dtype_name(card, variant, cpu_bfloat16=True) == said


def _song(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> np.ndarray[Any, Any]:
    """A song of the tiny architecture as a model of another name, whose weights keep the device's type.

    The weights are those that bfloat16 can hold, so that only the computation differs.
    """
    asked: list[torch.dtype] = []

    def load(model: str, variant: Variant, *, dtype: torch.dtype, quantization: None) -> Components:
        components = build("tiny", variant, dtype=torch.float32)
        for module in components.modules().values():
            for tensor in (*module.parameters(), *module.buffers()):
                tensor.data = tensor.data.to(torch.bfloat16).to(dtype)
        asked.append(dtype)
        return components

    monkeypatch.setattr(kept_model, "load", load)
    monkeypatch.setattr(services, "require_room_for", lambda *_, **__: None)
    service = Service("as large as the real ones", here=(CpuDevice(dtype), CPU))
    try:
        result, _ = service.generate(SONG, exact(CPU, Knobs()))
    finally:
        service.close()
    assert asked == [dtype]
    return result.songs[0].audio


def test_a_song_in_bfloat16_is_that_in_float32_but_for_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """float16 rounds to three bits more, so if nothing else differs, its error is an eighth."""
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    widest, *others = (_song(dtype, monkeypatch) for dtype in dtypes)
    brain, half = (np.sqrt(np.mean((song - widest) ** 2) / np.mean(widest**2)) for song in others)
    assert 4 < brain / half < 16, f"errors of {brain:.2%} and {half:.2%} of the root mean square"
    assert brain < 0.25


def test_the_tiny_model_is_the_same_on_every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes: list[torch.dtype] = []

    def load(model: str, variant: Variant, *, dtype: torch.dtype, quantization: None) -> Components:
        dtypes.append(dtype)
        return build("tiny", variant, dtype=dtype)

    monkeypatch.setattr(kept_model, "load", load)
    device = CpuDevice(torch.bfloat16)
    service = Service("tiny", here=(device, CPU))
    service.preload(exact(CPU, Knobs()), think=False, notify=lambda _: None)
    service.close()
    language = Language("tiny", Knobs(lm="0.6B"), device, longest_s=10, warn=lambda _: None)
    dtypes += [next(language.modules()["lm"].parameters()).dtype]
    language.close()
    assert dtypes == [torch.float32, torch.float32]
