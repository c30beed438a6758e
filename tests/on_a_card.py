"""The requirements of every card, checked on the device that is passed.

`tests/gpu` uses real cards; `tests/integration/test_card_promises.py` uses simulated ones, so that the checks run
everywhere.
"""

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import torch

from acestep.checkpoints.build import build
from acestep.checkpoints.components import Components
from acestep.devices.base import Device
from acestep.dit.attention import Kernels
from acestep.engine.pipeline import Pipeline, prepare
from acestep.knobs import Knobs, Offload, Quantization, Variant
from acestep.request import Request
from acestep.result import Result

REQUEST = Request(caption="slow piano", lyrics="la la", duration_s=2, seed=3, steps=2)


def loaded(device: Device, knobs: Knobs, model: str = "tiny") -> Components:
    components = build("tiny" if model == "tiny" else "dummy", Variant.TURBO, dtype=device.dtype)
    prepare(components, knobs)
    return components


def generated(components: Components, knobs: Knobs, device: Device, request: Request = REQUEST) -> Result:
    pipeline = Pipeline(components, knobs, device)
    try:
        return pipeline.generate(request)
    finally:
        pipeline.close()


def songs_of_every_placement(
    open_device: Callable[[], Device], quantization: Quantization | None, offloads: Sequence[Offload]
) -> list[np.ndarray]:
    """The same request with the weights resting wherever they can; loaded anew each time."""
    songs = []
    for offload in offloads:
        knobs, device = Knobs(offload=offload, quantization=quantization), open_device()
        songs.append(generated(loaded(device, knobs), knobs, device).songs[0].audio)
    return songs


def require_order(device: Device, delay: Callable[[], None]) -> None:
    """An asynchronous copy neither overwrites data that is still being read, nor is read before it has arrived."""
    size = 1 << 20
    slot = device.reserve(size, "slot")
    for turn in range(8):
        old, new = 2 * turn, 2 * turn + 1
        slot.fill_(old)
        pinned = device.pinned(size)
        source = torch.empty(size, dtype=torch.uint8) if pinned is None else pinned
        source.fill_(new)
        delay()
        before = slot.clone()
        arrived = device.fetch([(slot, source)], device.mark())
        device.wait(arrived)
        after = slot.clone()
        device.synchronize()
        assert bool((before == old).all()), "overwritten while it was still to be read"
        assert bool((after == new).all()), "read before it had arrived"


def require_nothing_left(
    device: Device, offload: Offload, held: Callable[[], int], refuse: Callable[[], None], *, generations: int = 20
) -> None:
    """However many songs are made or fail, no byte more is held than after the first; `refuse` makes the next fail."""
    knobs = Knobs(offload=offload)
    pipeline = Pipeline(loaded(device, knobs), knobs, device)
    pipeline.generate(REQUEST)
    gc.collect()
    resting = held()
    for _ in range(generations):
        pipeline.generate(REQUEST)
    assert held() == resting
    for _ in range(3):
        refuse()
        with suppress(torch.OutOfMemoryError):
            pipeline.generate(REQUEST, strict=True)
        gc.collect()
        assert held() <= resting
    pipeline.generate(REQUEST)
    assert held() == resting
    pipeline.close()


def require_right_attention(kernels: Kernels, device: Device, *, rows: int, tolerance: float) -> None:
    """Full and banded attention with grouped heads are those of a dense mask in float64."""
    torch.manual_seed(5)
    heads, groups, width, window = 8, 2, 64, 128
    exact = [torch.randn(2, rows, n, width, dtype=torch.float64) for n in (heads, groups, groups)]
    query, key, value = (tensor.to(device.torch_device, device.dtype) for tensor in exact)
    far = (torch.arange(rows)[:, None] - torch.arange(rows)).abs() > window
    masks = {"full": torch.zeros(rows, rows, dtype=torch.float64)}
    masks["banded"] = masks["full"].masked_fill(far, float("-inf"))
    results = {"full": kernels.full(query, key, value), "banded": kernels.banded_(query.clone(), key, value, window)}
    for name, result in results.items():
        repeated = [exact[0], *(tensor.repeat_interleave(heads // groups, 2) for tensor in exact[1:])]
        expected = torch.nn.functional.scaled_dot_product_attention(
            *(tensor.transpose(1, 2) for tensor in repeated), attn_mask=masks[name]
        ).transpose(1, 2)
        assert distance(result.double().cpu().numpy(), expected.numpy()) < tolerance, name


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Of two arrays, as a share of the second; NaN is no distance."""
    found = float(np.linalg.norm(one - other) / np.linalg.norm(other))
    assert found == found, "not a number"
    return found
