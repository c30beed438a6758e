"""The memory that a kernel takes besides its tensors is reported separately; measured with a fake meter."""

import pytest
import torch
from torch import nn

from acestep.checkpoints.build import build
from acestep.dit.vae_decode import TileDecoder, fold_weight_norm
from acestep.errors import Exit
from acestep.limits.capabilities import HOPPER_MATRIX_WORKSPACE, MATRIX_WORKSPACE, matrix_workspace, torch_release
from acestep.units import MIB
from calibrate.probes.simulated.kernels import CudaKernels
from tools import card_workspaces
from tools.card_workspaces import attentions, convolutions, measure_first_product

HOST = torch.device("cpu")
AMPERE, HOPPER, BLACKWELL = (8, 6), (9, 0), (12, 0)


class Stated:
    """A meter that says the same of every call."""

    def __init__(self, seen: int, unseen: int) -> None:
        self.started = 0
        self._said = seen, unseen

    def start(self) -> None:
        self.started += 1

    def risen(self) -> tuple[int, int]:
        return self._said


def test_every_convolution_of_a_tile_is_measured_with_what_the_simulation_allows() -> None:
    vae = build("tiny", dtype=torch.float32).vae
    fold_weight_norm(vae)
    decoder = TileDecoder(vae.decoder)
    layers = [m for m in decoder.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d)]
    meter = Stated(seen=100 * MIB, unseen=7)
    calls = list(convolutions(decoder, torch.randn(1, vae.decoder.conv1.in_channels, 8), AMPERE, meter))
    assert len(calls) == len(layers) == meter.started
    for call in calls:
        assert call.allowed_bytes == call.input_bytes + call.output_bytes
        assert call.seen_bytes == 100 * MIB - call.output_bytes
        assert call.unseen_bytes == 7
    assert calls[-1].output_bytes == 2 * 8 * 1920 * 4
    again = list(convolutions(decoder, torch.randn(1, vae.decoder.conv1.in_channels, 8), AMPERE, Stated(0, 0)))
    assert [call.kernel for call in again] == [call.kernel for call in calls], "nothing stays hooked"
    assert all(call.seen_bytes == 0 for call in again)


def test_attention_is_measured_beside_its_result() -> None:
    full, block = attentions(HOST, torch.float32, [400], Stated(seen=10 * MIB, unseen=0))
    assert full.output_bytes == 400 * 16 * 128 * 4
    assert full.seen_bytes == 10 * MIB - full.output_bytes
    assert full.allowed_bytes == 400 * 16 * 4
    assert block.allowed_bytes == 0


@pytest.mark.parametrize(
    ("capability", "modelled"),
    [(AMPERE, MATRIX_WORKSPACE), (HOPPER, HOPPER_MATRIX_WORKSPACE), (BLACKWELL, HOPPER_MATRIX_WORKSPACE)],
)
def test_the_first_product_is_held_against_the_workspace_that_is_modelled_for_this_card(
    capability: tuple[int, int], modelled: int
) -> None:
    product = measure_first_product(HOST, torch.float32, capability, Stated(9 * MIB, 0))
    assert product.allowed_bytes == modelled == CudaKernels(capability).matmul_bytes


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_without_a_card_nothing_is_measured(tmp_path: object) -> None:
    assert card_workspaces.main(["-o", f"{tmp_path}/workspaces.json"]) == Exit.NOT_MEASURED


@pytest.mark.parametrize(
    ("version", "release"), [("2.11.0", (2, 11)), ("2.13.0+cu130", (2, 13)), ("2.14.1", (2, 14)), ("nightly", None)]
)
def test_blackwell_has_the_larger_workspace_since_a_release(version: str, release: tuple[int, int] | None) -> None:
    assert torch_release(version) == release
    older = release == (2, 11)
    assert matrix_workspace((12, 0), release) == (MATRIX_WORKSPACE if older else HOPPER_MATRIX_WORKSPACE)
    assert matrix_workspace((9, 0), release) == HOPPER_MATRIX_WORKSPACE
    assert matrix_workspace((8, 9), release) == MATRIX_WORKSPACE
