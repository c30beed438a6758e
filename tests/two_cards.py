"""A machine with two NVIDIA cards, as the driver library and torch show it."""

import os
import sys
from typing import Any

import pytest

from acestep.devices import open as opening
from acestep.hardware.detection import DEVICE_VARIABLE, LM_DEVICE_VARIABLE
from acestep.hardware.detection.torch_build import TorchBuild
from tests.fake_cards import Board, FakeNvml, fake_torch, properties

SMALL = Board(name="NVIDIA GeForce RTX 4060", uuid="GPU-aaaa-1", gib=8)
LARGE = Board(name="NVIDIA GeForce RTX 4090", uuid="GPU-bbbb-2", gib=24)
LISTED = [properties(SMALL.name, "aaaa-1", 7.6), properties(LARGE.name, "bbbb-2", 23.53)]


class Driver:
    """What the driver library and torch say, as a test sets it; torch sees what `CUDA_VISIBLE_DEVICES` shows."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        patch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa-1,GPU-bbbb-2")
        for variable in (DEVICE_VARIABLE, LM_DEVICE_VARIABLE):
            # Set first, so that what a run sets is taken back.
            patch.setenv(variable, "")
            patch.delenv(variable)
        self.build(cuda="13.0")
        self.boards(SMALL, LARGE)

    def boards(self, *boards: Board, **more: Any) -> None:
        self._patch.setitem(sys.modules, "pynvml", FakeNvml(boards, **more))  # type: ignore[arg-type]

    def build(self, **versions: str) -> None:
        self._patch.setattr(
            "acestep.hardware.detection.installed_build", lambda: TorchBuild(version="2.13.0", **versions)
        )

    def torch(self, cards: list[Any] | None = None, **more: Any) -> None:
        """A torch that lists these cards; None for those that the variable shows."""
        fake = fake_torch(LISTED if cards is None else cards, **more)
        if cards is None:
            shown = os.environ["CUDA_VISIBLE_DEVICES"]
            fake.cuda.device_count = lambda: len(visible())
            fake.cuda.get_device_properties = lambda index: visible()[index]

            def visible() -> list[Any]:
                uuids = os.environ.get("CUDA_VISIBLE_DEVICES", shown).split(",")
                return [card for uuid in uuids for card in LISTED if uuid == f"GPU-{card.uuid}"]

        self._patch.setattr(opening, "torch", fake)
