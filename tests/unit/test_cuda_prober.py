"""The prober on a real card claims nothing without one, and tells its children which card and how."""

import os
import subprocess
import sys

import pytest

from acestep.errors import NotMeasuredError
from acestep.hardware.card import Card, CardKind
from acestep.hardware.detection import Detection
from acestep.units import GIB
from calibrate.probes import cuda
from calibrate.probes.cuda import NO_CACHING, CudaProber, child_environ


def test_without_a_card_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(NotMeasuredError, match="no NVIDIA card"):
        CudaProber()


def test_a_card_that_computes_in_float32_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    turing = Card(kind=CardKind.CUDA, name="an old card", total_bytes=8 * GIB, capability=(7, 5))
    monkeypatch.setattr(cuda, "look", lambda _: Detection(card=turing, cards=(turing,), answers=()))
    with pytest.raises(NotMeasuredError, match="an old card has no bfloat16"):
        CudaProber()


def test_a_card_that_torch_cannot_use_is_not_measured_and_the_cause_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(kind=CardKind.CUDA, name="a card", total_bytes=8 * GIB, capability=(8, 6))
    found = Detection(card=card, cards=(card,), answers=(), obstacle="The driver is too old for torch.")
    monkeypatch.setattr(cuda, "look", lambda _: found)
    with pytest.raises(NotMeasuredError, match="too old"):
        CudaProber()


def test_a_card_without_a_uuid_is_not_hidden_from_children() -> None:
    assert child_environ({"CUDA_VISIBLE_DEVICES": "0"}, "")["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in child_environ({}, "")


def test_children_see_one_card_by_uuid_and_no_network() -> None:
    told = child_environ({"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "3", "HF_HUB_OFFLINE": "0", NO_CACHING: "1"}, "GPU-1")
    assert told["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert told["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert told["HF_HUB_OFFLINE"] == "1"
    assert told["PATH"] == "/bin"


def test_children_never_run_with_an_allocator_that_ignores_caps() -> None:
    assert NO_CACHING not in child_environ({NO_CACHING: "1"}, "GPU-1")


def test_children_keep_the_allocator_settings_they_will_report() -> None:
    setting = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    assert setting.items() <= child_environ(setting, "GPU-1").items()


def test_neither_the_prober_nor_the_protocol_of_its_children_needs_torch() -> None:
    code = "import calibrate.probes.cuda, calibrate.probes.worker, calibrate.probes.ballast, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "calibrate.probes.session" in loaded
    assert "torch" not in loaded
