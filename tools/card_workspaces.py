"""Measures the memory that kernels take on this card besides a program's tensors, next to the simulation's allowance.

python -m tools.card_workspaces -o FILE [--tiles 64 256 512 1536] [--model dummy]

Every convolution of the decoder, a first matrix product, and attention at the lengths of short and long songs.
`seen_bytes` are those from PyTorch's allocator beyond input and output, `unseen_bytes` were taken from the driver
outside it and stay. The constants in `calibrate/probes/simulated/kernels.py` are updated from FILE.
"""

import argparse
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep.checkpoints.build import build
from acestep.checkpoints.catalog import SIZES
from acestep.devices.accelerator import CudaDevice
from acestep.dit.vae_decode import TileDecoder, fold_weight_norm
from acestep.errors import Exit
from acestep.knobs import Variant
from acestep.limits.capabilities import matrix_workspace, torch_release
from acestep.limits.workspace import BLOCK_ROWS
from acestep.output_file import output_file
from calibrate.files import pretty_json
from calibrate.probes.simulated.kernels import CudaKernels

CONVOLUTION_LAYERS = (nn.Conv1d, nn.ConvTranspose1d)
ROWS = (750, 7_500, 15_000)
"""Queries of attention: a song has 25 latent frames a second, and the transformer combines two into one."""

HEADS, GROUPS, WIDTH, WINDOW = 16, 8, 128, 128
"""The 2B transformer's."""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a kernel, in bytes."""

    kernel: str
    input_bytes: int
    output_bytes: int
    seen_bytes: int
    unseen_bytes: int
    allowed_bytes: int


class WorkspaceReport(msgspec.Struct, frozen=True, kw_only=True):
    """The file: what was run, on what, and every call."""

    command: str
    card: str
    torch: str
    cudnn: int
    calls: tuple[Taken, ...]


class Meter(Protocol):
    """Counts a card's memory."""

    def start(self) -> None:
        """Start counting peaks from the current use."""
        ...

    def risen(self) -> tuple[int, int]:
        """Return the bytes since the start: the peak in the allocator, and those taken outside it."""
        ...


class CardMeter:
    """Counts with PyTorch's and the driver's figures."""

    def __init__(self) -> None:
        self._held = self._outside = 0

    def start(self) -> None:
        """Wait for all earlier work, then start."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._held, self._outside = torch.cuda.memory_allocated(), self._beside()

    def risen(self) -> tuple[int, int]:
        """Wait for all work since the start, then return the bytes."""
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - self._held, max(0, self._beside() - self._outside)

    def _beside(self) -> int:
        free, total = torch.cuda.mem_get_info()
        return int(total - free - torch.cuda.memory_reserved())


def convolutions(decoder: TileDecoder, latents: Tensor, capability: tuple[int, int], meter: Meter) -> Iterator[Taken]:
    """Yield every convolution of one tile, next to the allowance for a card of that compute capability."""
    found: list[Taken] = []
    hooks = []
    kernels = CudaKernels(capability)

    def before(*_: Any) -> None:
        meter.start()

    def after(name: str) -> Callable[..., None]:
        def note(layer: nn.Conv1d | nn.ConvTranspose1d, given: tuple[Tensor], result: Tensor) -> None:
            seen, unseen = meter.risen()
            transposed = isinstance(layer, nn.ConvTranspose1d)
            found.append(
                Taken(
                    kernel=f"{name} of {latents.shape[-1]} frames",
                    input_bytes=_bytes_of(given[0]),
                    output_bytes=_bytes_of(result),
                    seen_bytes=max(0, seen - _bytes_of(result)),
                    unseen_bytes=unseen,
                    allowed_bytes=kernels.convolution(given[0], layer.weight, result, transposed=transposed),
                )
            )

        return note

    for name, module in decoder.named_modules():
        if isinstance(module, CONVOLUTION_LAYERS):
            hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after(name))]
    try:
        with torch.no_grad():
            decoder(latents)
    finally:
        for hook in hooks:
            hook.remove()
    yield from found


def attentions(device: torch.device, dtype: torch.dtype, rows: Sequence[int], meter: Meter) -> Iterator[Taken]:
    """Yield the fused kernels of full layers, for each number of rows, and of one block of a sliding layer."""

    def some(count: int, heads: int) -> Tensor:
        return torch.randn(1, heads, count, WIDTH, device=device, dtype=dtype)

    for count in rows:
        heads = some(count, HEADS), some(count, GROUPS), some(count, GROUPS)
        attend = partial(F.scaled_dot_product_attention, enable_gqa=True)
        # Log-sum-exp of every row and head.
        yield _taken(f"full attention of {count} rows", heads, attend, count * HEADS * 4, meter)
    columns = BLOCK_ROWS + 2 * WINDOW
    mask = torch.zeros(BLOCK_ROWS, columns, device=device, dtype=dtype)
    block = some(BLOCK_ROWS, HEADS), some(columns, HEADS), some(columns, HEADS)
    yield _taken(
        "a block of banded attention", block, partial(F.scaled_dot_product_attention, attn_mask=mask), 0, meter
    )


def measure_first_product(device: torch.device, dtype: torch.dtype, capability: tuple[int, int], meter: Meter) -> Taken:
    """Return what the first matrix product takes and keeps, next to the allowance for that capability."""
    matrix = torch.randn(512, 512, device=device, dtype=dtype)
    kept = matrix_workspace(capability, torch_release(torch.__version__))
    return _taken("first product", (matrix, matrix), torch.matmul, kept, meter)


def _taken(
    kernel: str, inputs: Sequence[Tensor], call: Callable[..., Tensor], allowed_bytes: int, meter: Meter
) -> Taken:
    meter.start()
    result = call(*inputs)
    seen, unseen = meter.risen()
    return Taken(
        kernel=kernel,
        input_bytes=sum(map(_bytes_of, inputs)),
        output_bytes=_bytes_of(result),
        seen_bytes=max(0, seen - _bytes_of(result)),
        unseen_bytes=unseen,
        allowed_bytes=allowed_bytes,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure on this machine's card."""
    options = _options(arguments)
    if not torch.cuda.is_available():
        sys.stderr.write("no CUDA card was found, so no workspace can be measured\n")
        return Exit.NOT_MEASURED
    device, meter = CudaDevice(), CardMeter()
    place, dtype = device.torch_device, device.dtype
    capability = torch.cuda.get_device_capability()
    calls = [measure_first_product(place, dtype, capability, meter), *attentions(place, dtype, ROWS, meter)]
    vae = build(SIZES[options.model], Variant.TURBO, dtype=dtype).vae
    fold_weight_norm(vae)
    decoder = TileDecoder(vae.decoder.to(place))
    for tile in options.tiles:
        latents = torch.randn(1, vae.decoder.conv1.in_channels, tile, device=place, dtype=dtype)
        calls += convolutions(decoder, latents, capability, meter)
        del latents
        gc.collect()
        torch.cuda.empty_cache()
    found = WorkspaceReport(
        command="python -m tools.card_workspaces " + " ".join(sys.argv[1:] if arguments is None else arguments),
        card=torch.cuda.get_device_name(),
        torch=str(torch.__version__),
        cudnn=torch.backends.cudnn.version() or 0,  # type: ignore[no-untyped-call]
        calls=tuple(calls),
    )
    with output_file(options.output) as write:
        write(pretty_json(found))
    return Exit.OK


def _bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--tiles", type=int, nargs="+", default=[64, 256, 512, 1536], metavar="FRAMES")
    parser.add_argument("--model", choices=sorted(SIZES), default="dummy", help="sizes of the weights")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
