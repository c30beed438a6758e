"""Tensors made of tensors: quantised weights are wrappers whose inner tensors hold the bytes."""

from collections.abc import Callable

from torch import Tensor, nn


def map_storage(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`tensor` with `change` applied to every plain tensor inside; parameters stay parameters."""
    is_parameter = isinstance(tensor, nn.Parameter)
    plain = tensor.data if is_parameter else tensor
    if hasattr(plain, "__tensor_flatten__"):
        names, context = plain.__tensor_flatten__()
        inner = {name: map_storage(getattr(plain, name), change) for name in names}
        changed = type(plain).__tensor_unflatten__(inner, context, plain.shape, plain.stride())
    else:
        changed = change(plain)
    return nn.Parameter(changed, requires_grad=False) if is_parameter else changed
