"""Tensors made of tensors: quantised weights are wrappers whose inner tensors hold the bytes."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn


def map_storage(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`tensor` with `change` applied to every plain tensor inside; parameters stay parameters."""
    is_parameter = isinstance(tensor, nn.Parameter)
    plain: Any = tensor.data if is_parameter else tensor
    if hasattr(plain, "__tensor_flatten__"):
        names, context = plain.__tensor_flatten__()
        inner = {name: map_storage(getattr(plain, name), change) for name in names}
        changed = type(plain).__tensor_unflatten__(inner, context, plain.shape, plain.stride())
    else:
        changed = change(plain)
    return nn.Parameter(changed, requires_grad=False) if is_parameter else changed


def slots(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Every place of one module, not of its children, that holds a tensor: a table, the key in it, and the tensor."""
    tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)  # noqa: SLF001 no public view can be set
    for table in tables:
        for key, tensor in list(table.items()):
            if tensor is not None:
                yield table, key, tensor
