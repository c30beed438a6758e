"""The coefficients of the table in force, against the simulator on requests that they were not fitted to."""

from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from acestep.adapters.choice import Adapter
from acestep.adapters.memory import memory_apart
from acestep.checkpoints.build import build
from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.knobs import Knobs, Offload, Quantization
from acestep.limits.guard import Demand, predict
from acestep.request import Request
from acestep.tiers import load_tiers
from acestep.units import MIB
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.prober import REGIONS, full_size
from tests.denoise_caps import denoise_cap
from tests.some import first_of


@pytest.mark.parametrize(
    ("offload", "quantization", "songs", "seconds", "tokens"),
    first_of(
        [
            (Offload.CPU_DIT, None, 3, 205.0, 1500),
            (Offload.CPU_DIT, Quantization.INT8, 7, 131.0, 500),
            (Offload.CPU, Quantization.INT8, 2, 370.0, 2000),
            (Offload.NONE, None, 5, 43.0, 900),
            (Offload.STREAM, None, 4, 88.0, 600),
            (Offload.STREAM_ENCODERS, Quantization.INT8, 6, 240.0, 1400),
        ],
        4,
    ),
)
def test_the_guard_is_never_under_and_at_most_five_per_cent_over(
    offload: Offload, quantization: Quantization | None, songs: int, seconds: float, tokens: int
) -> None:
    knobs = Knobs(offload=offload, quantization=quantization)
    request = Request(caption="", batch=songs, duration_s=seconds, steps=2)
    demand = Demand(songs=songs, frames=request.latent_frames, lyric_tokens=tokens - 1, text_tokens=0)
    predicted = predict(load_tiers().variants[knobs.variant].memory_model, knobs, demand)
    assert predicted, "the table in force has no coefficients for the guard: run `python -m calibrate run` and merge"
    weights, kernels = full_size(knobs.variant, quantization), CudaKernels(SIMULATED_CAPABILITY)
    needed, _ = denoise_cap(weights, knobs, request, tokens, kernels, REGIONS)
    assert needed <= predicted["denoise"] <= 1.05 * needed


def adapter_of_every_block(folder: Path, kind: str) -> Adapter:
    """An adapter of every linear layer of the blocks, of full size, that changes nothing."""
    transformer = build("dummy", dtype=torch.bfloat16, materialise="meta").transformer
    tensors: dict[str, torch.Tensor] = {}

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.bfloat16)

    for name, layer in transformer.layers.named_modules(prefix="layers"):
        if isinstance(layer, nn.Linear):
            out, into = layer.out_features, layer.in_features
            if kind == "lora":
                parts = {"lora_A.weight": zeros(64, into), "lora_B.weight": zeros(out, 64)}
            else:
                parts = {"lokr_w1": zeros(4, 4), "lokr_w2": zeros(out // 4, into // 4)}
            tensors |= {f"transformer.{name}.{part}": tensor for part, tensor in parts.items()}
    save_file(tensors, folder / "every.safetensors")
    return Adapter(path=folder / "every.safetensors", fused=False)


@pytest.mark.parametrize(
    ("kind", "offload"),
    first_of(
        [
            ("lora", Offload.CPU_DIT),
            ("lokr", Offload.STREAM),
            ("lokr", Offload.NONE),
            ("lora", Offload.STREAM_ENCODERS),
            ("lora", Offload.CPU),
        ],
        2,
    ),
)
def test_adapters_beside_the_weights_take_what_the_guard_predicts(kind: str, offload: Offload, tmp_path: Path) -> None:
    knobs, adapter = Knobs(offload=offload), adapter_of_every_block(tmp_path, kind)
    request = Request(caption="", batch=2, duration_s=120, steps=2)
    demand = Demand(songs=2, frames=request.latent_frames, lyric_tokens=1499, text_tokens=0)
    model, memory = load_tiers().variants[knobs.variant].memory_model, memory_apart([adapter])
    kernels, caps, predictions = CudaKernels(SIMULATED_CAPABILITY), [], []
    for adapters in ((), (adapter,)):
        weights = full_size(knobs.variant, None, torch.bfloat16, adapters)
        caps.append(denoise_cap(weights, knobs, request, 1500, kernels, REGIONS)[0])
        asked = msgspec.structs.replace(demand, adapters=memory) if adapters else demand
        predictions.append(predict(model, knobs, asked)["denoise"])
    assert caps[1] <= predictions[1] <= 1.05 * caps[1]
    assert predictions[1] - predictions[0] == pytest.approx(caps[1] - caps[0], rel=0.05, abs=8 * MIB)
    assert caps[1] - caps[0] > 8 * MIB
