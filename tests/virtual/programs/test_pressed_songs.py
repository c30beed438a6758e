"""Songs beside other programs and other code on one card: on the page, on the command line, and one after another."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from acestep.checkpoints.components import Components
from acestep.devices.accelerator import CudaDevice
from acestep.engine.pipeline import Pipeline
from acestep.errors import Exit, NotEnoughMemoryError
from acestep.knobs import Knobs, Offload
from acestep.limits.plan import Overrides
from acestep.request import DecodePath, Request
from acestep.serving.failures import FailureKind, failure_of
from acestep.serving.visits import Visit
from acestep.ui.studio import Studio
from acestep.units import GIB, MIB
from tests.gpu.wall import LARGE_TILE
from tests.virtual.processes import running
from tests.virtual.programs.test_commands import ran
from tests.virtual.programs.test_full_card import leave_free, song
from virtual_card.card import VirtualCard
from virtual_card.controls import Control, Controls

REQUEST = Request(caption="rain", duration_s=40, steps=2)
NOTHING = 100 * MIB
"""Too little for any stage of a song."""


@pytest.mark.parametrize(("model", "free", "code"), [("dummy", 2 * GIB, Exit.OK), ("tiny", 4 * MIB, Exit.RUN_FAILED)])
def test_a_command_on_a_card_that_others_use_makes_its_song_or_says_that_memory_is_missing(
    tmp_path: Path, model: str, free: int, code: Exit
) -> None:
    context = 300 * MIB
    card = VirtualCard(board_bytes=8 * GIB, others_bytes=8 * GIB - 250 * MIB - context - free)
    asked = ("--caption", "rain", "--model", model, "--duration", 10, "--no-think", "--no-compile")
    with running(cards=(card,)) as machine:
        done = ran(machine, "acestep", "generate", *asked, "--json", "--out", tmp_path)
    assert done.returncode == code, done.stderr
    document = json.loads(done.stdout)
    assert "Traceback" not in done.stderr
    if code is Exit.OK:
        assert "of the card are free now" in " ".join(document["warnings"])
    else:
        assert "memory" in document["error"]["message"]


@pytest.mark.parametrize("offload", [Offload.NONE, Offload.CPU_DIT, Offload.STREAM])
def test_every_later_song_takes_what_the_first_one_took(
    components: Components, controls: Controls, offload: Offload
) -> None:
    device = CudaDevice()
    pipeline = Pipeline(components, Knobs(offload=offload), device)
    peaks, resting = [], []
    for _ in range(3):
        done = pipeline.generate(REQUEST, strict=True)
        peaks.append([(stage.name, stage.peak_allocated_bytes, stage.peak_reserved_bytes) for stage in done.stages])
        gc.collect()
        resting.append(device.allocated_bytes())
    pipeline.close()
    # The first product of a process keeps a workspace.
    assert peaks[1] == peaks[2]
    assert resting[1] == resting[2]
    for (name, allocated, _), (_, first, _) in zip(peaks[1], peaks[0], strict=True):
        assert abs(allocated - first) <= device.matrix_workspace, name


def test_gaps_between_other_code_s_blocks_are_no_room_and_the_song_is_made_beside_them(
    components: Components, controls: Controls
) -> None:
    """Two of three blocks of each segment are freed: the allocator keeps them, and no large block fits in."""
    blocks = [torch.empty(6 * MIB, dtype=torch.uint8, device="cuda") for _ in range(300)]
    held = blocks[::3]
    del blocks
    device = CudaDevice()
    before = device.allocated_bytes()
    gaps = torch.cuda.memory_reserved() - before
    assert gaps > GIB
    # Free memory counts the gaps, so a tile is chosen that does not fit.
    result = song(components, Offload.CPU_DIT, "decode", lambda: leave_free(controls, 700 * MIB))
    assert result.decode_path is DecodePath.GPU
    assert result.warnings
    assert device.allocated_bytes() - before <= device.matrix_workspace
    assert all(block.numel() == 6 * MIB for block in held)


@pytest.mark.parametrize("room", [900 * MIB, 600 * MIB])
def test_a_streamed_song_is_made_however_little_others_leave_it_at_any_stage(
    components: Components, controls: Controls, room: int
) -> None:
    for stage in ("encode", "denoise", "decode"):
        result = song(components, Offload.STREAM, stage, lambda: leave_free(controls, room), batch=2)
        assert len(result.songs) == 2
        assert result.decode_path is DecodePath.GPU
        controls.set(Control.OTHERS_BYTES, 0)
    pipeline = Pipeline(components, Knobs(offload=Offload.STREAM), CudaDevice(), vae_chunk=LARGE_TILE)
    assert pipeline.generate(REQUEST).decode_path is DecodePath.GPU
    pipeline.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """The page's model, with nothing compiled and no language model; it stays on the card until the last test."""
    studio = Studio("dummy", Overrides(lm=None, compile=False), tmp_path_factory.mktemp("songs"))
    yield studio
    studio.close()


class Pressed(Visit):
    """A visit during which other programs fill the card to `room` bytes when a run comes to `stage`, once.

    Without a stage they take again at each step of the run what it gave back.
    """

    def __init__(self, out: Path, controls: Controls, room: int, stage: str | None = None) -> None:
        super().__init__(out)
        self._controls, self._room, self._stage = controls, room, stage
        self.others = True

    def report(self, stage: str, done: int, total: int) -> None:
        if self.others and stage == (self._stage or stage):
            self.others = self._stage is None
            leave_free(self._controls, self._room)
        super().report(stage, done, total)

    def alone(self) -> None:
        """The others are gone."""
        self.others = False
        self._controls.set(Control.OTHERS_BYTES, 0)


def on_the_page(studio: Studio, visit: Visit) -> tuple[int, str]:
    """How many songs were made, and what the page says besides."""
    wish, _ = studio.start()
    document = studio.generate(REQUEST, wish, "wav", visit, lambda path: path)
    return len(document["songs"]), " ".join(document["warnings"])


@pytest.mark.parametrize(("stage", "room"), [("loading", 2 * GIB), ("denoise", 32 * MIB), ("decode", 100 * MIB)])
def test_a_song_of_the_page_is_made_beside_programs_that_come_and_the_next_has_the_card_again(
    studio: Studio, controls: Controls, tmp_path: Path, stage: str, room: int
) -> None:
    visit = Pressed(tmp_path, controls, room, stage)
    made, said = on_the_page(studio, visit)
    assert made == 1
    assert "free now" in said or "out of memory" in said
    visit.alone()
    made, said = on_the_page(studio, visit)
    assert made == 1
    assert "free now" not in said
    assert "out of memory" not in said
    assert len(visit.made) == 2


def test_a_page_whose_card_is_full_says_so_and_makes_the_next_song(
    studio: Studio, controls: Controls, tmp_path: Path
) -> None:
    visit = Pressed(tmp_path, controls, NOTHING)
    failure = None
    try:
        on_the_page(studio, visit)
    except NotEnoughMemoryError as error:
        failure = failure_of(error)
    assert failure is not None
    assert failure.kind is FailureKind.MEMORY
    studio.rest()
    visit.alone()
    assert on_the_page(studio, visit)[0] == 1
