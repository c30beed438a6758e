"""Modules without weights, and the ways to fill them."""

import warnings
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

from acestep.checkpoints.libraries import Qwen3RotaryEmbedding, ResidualFSQ
from acestep.checkpoints.noise import LEAST_MAPPED_BYTES, mapped_noise, maps_noise

M = TypeVar("M", bound=nn.Module)

POOL = 4_194_301
"""Length of the noise that random weights are cut from: a prime, so that no two rows of a matrix are alike."""

RESIDUAL_GAIN = 0.1
"""Gain of the VAE's residual branches: fifteen of them in a row at gain 1 would overflow bfloat16 audio."""


class _ShapesOnly(TorchFunctionMode):
    """Skips what weight_norm computes from the tensors it wraps: on `meta` that is most of the VAE's build time."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.norm_except_dim:
            v, _, dim = args
            return v.new_empty([size if axis == dim else 1 for axis, size in enumerate(v.shape)])
        if func is torch._weight_norm:  # noqa: SLF001 - the function that weight_norm itself calls
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


def bare(cls: type[M], *args: Any, **config: Any) -> M:
    """`cls` built without allocating: every tensor on `meta`, in eval mode, without gradients."""
    with torch.device("meta"), _ShapesOnly(), warnings.catch_warnings():
        # The VAE uses the old weight_norm on purpose: its checkpoints are stored as weight_g and weight_v.
        warnings.filterwarnings("ignore", message=".*weight_norm.* is deprecated", category=FutureWarning)
        module = cls(*args, **config)
    return module.eval().requires_grad_(False)


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a bare `module` its tensors, by state-dict key and without copying, and compute what no file holds."""
    module.load_state_dict(tensors, strict=True, assign=True)
    device = next(iter(tensors.values())).device
    for child in module.modules():
        _compute_constants(child, device)
        _refresh_weight_norm(child)
    left = [name for name, tensor in _named_tensors(module) if tensor.is_meta and device.type != "meta"]
    if left:
        raise RuntimeError(f"{type(module).__name__} was given no value for {', '.join(left)}")


def empty(module: nn.Module, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """A tensor of unset values for every key of `module`; on a CPU its memory is committed only when written."""
    return {
        key: torch.empty(t.shape, dtype=dtype if t.is_floating_point() else t.dtype, device=device)
        for key, t in module.state_dict().items()
    }


def randomise(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Write noise that keeps activations near unit scale into `tensors`, the same on every call."""
    for key, mean, deviation in _distributions(module, tensors):
        _write(tensors[key], _full_name(module, key), mean, deviation)


def random_tensors(module: nn.Module, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Return noise for every key of `module`; on a CPU, large tensors take no memory until they are written."""
    shapes, mapped = empty(module, dtype, torch.device("meta")), dict[str, Tensor]()
    if device.type == "cpu" and maps_noise():
        for key, _, deviation in _distributions(module, shapes):
            if deviation and shapes[key].nbytes >= LEAST_MAPPED_BYTES:
                start = zlib.crc32(_full_name(module, key).encode())
                mapped[key] = mapped_noise(shapes[key].shape, shapes[key].dtype, deviation, start)
    written = {key: torch.empty_like(t, device=device) for key, t in shapes.items() if key not in mapped}
    randomise(module, written)
    return mapped | written


def _distributions(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, float, float]]:
    """Each key of `tensors` with the mean and the standard deviation of its values."""
    parts = dict(module.named_modules())
    for key, tensor in tensors.items():
        owner, _, name = key.rpartition(".")
        yield key, *_distribution(parts[owner], name, tensor)


def _full_name(module: nn.Module, key: str) -> str:
    return f"{type(module).__name__}.{key}"


def _distribution(owner: nn.Module, name: str, tensor: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the values of the tensor `name` of `owner`."""
    if name in ("bias", "alpha", "beta"):
        return 0.0, 0.0
    if name == "weight_g":
        return _weight_norm_gain(owner), 0.0
    if name == "weight" and tensor.ndim == 1:
        return 1.0, 0.0
    if name == "silence_latent":
        return 0.0, 0.1
    if isinstance(owner, nn.ConvTranspose1d):
        return 0.0, owner.in_channels**-0.5
    fan_in = tensor[0].numel() if isinstance(owner, (nn.Linear, nn.Conv1d)) else tensor.shape[-1]
    return 0.0, fan_in**-0.5


def _weight_norm_gain(owner: nn.Module) -> float:
    if isinstance(owner, nn.ConvTranspose1d):
        # The norm runs over output channels and kernel; each output sample sees kernel / stride taps of every input.
        return float((owner.out_channels * owner.stride[0] / owner.in_channels) ** 0.5)
    return RESIDUAL_GAIN if isinstance(owner, nn.Conv1d) and owner.kernel_size == (1,) else 1.0


@cache
def _pool(device: torch.device) -> Tensor:
    return torch.randn(POOL, generator=torch.Generator().manual_seed(0)).to(device)


def _write(tensor: Tensor, name: str, mean: float, deviation: float) -> None:
    """Fill `tensor` with noise that depends on its name alone: cut from the pool, which is far faster than drawing."""
    if deviation == 0.0:
        tensor.fill_(mean)
        return
    flat, pool = tensor.view(-1), _pool(tensor.device)
    done, start = 0, zlib.crc32(name.encode()) % POOL
    while done < flat.numel():
        count = min(flat.numel() - done, POOL - start)
        torch.mul(pool[start : start + count], deviation, out=flat[done : done + count])
        done, start = done + count, 0


def _compute_constants(module: nn.Module, device: torch.device) -> None:
    """Compute the buffers that are arithmetic, not weights, and therefore in no file."""
    if isinstance(module, Qwen3RotaryEmbedding):
        twin = Qwen3RotaryEmbedding(module.config)
    elif isinstance(module, ResidualFSQ):
        with torch.random.fork_rng(devices=[]):  # the twin also draws weights, which are not used
            twin = ResidualFSQ(dim=1, levels=module.levels, num_quantizers=module.num_quantizers)
    else:
        return
    for name, value in twin.named_buffers():
        setattr(module, name, value.to(device))


def _refresh_weight_norm(module: nn.Module) -> None:
    """Replace the plain attribute in which weight_norm keeps its product; it was computed from the bare tensors."""
    for hook in module._forward_pre_hooks.values():  # noqa: SLF001 - torch has no public way to find it
        if isinstance(hook, WeightNorm):
            setattr(module, hook.name, torch.empty_like(getattr(module, hook.name + "_v")))


def _named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
