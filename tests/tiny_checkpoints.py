"""Tiny models on disk and no network to get others from: fixtures that a test file takes by giving them their names."""

import shutil
from pathlib import Path

import pytest
import torch

from acestep.checkpoints.build import build
from acestep.checkpoints.components import Components
from acestep.knobs import Variant
from tests.checkpoints import write_original

NAMES = {
    Variant.TURBO: "acestep-v15-turbo",
    Variant.SFT: "acestep-v15-sft",
    Variant.XL_BASE: "acestep-v15-xl-base",
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("loading must not touch the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-hub-cache"))


@pytest.fixture(scope="module")
def tiny():
    return {variant: build("tiny", variant, dtype=torch.float32) for variant in NAMES}


@pytest.fixture(scope="module")
def turbo_on_disk(tiny, tmp_path_factory) -> Path:
    return write_original(tiny[Variant.TURBO], tmp_path_factory.mktemp("turbo"), NAMES[Variant.TURBO]).parent


@pytest.fixture
def written(tiny, turbo_on_disk, tmp_path) -> tuple[Components, Path]:
    """A turbo checkpoint that the test may spoil."""
    shutil.copytree(turbo_on_disk, tmp_path, dirs_exist_ok=True)
    return tiny[Variant.TURBO], tmp_path / NAMES[Variant.TURBO]
