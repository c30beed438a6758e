"""What an adapter adds to the result of a layer whose weight it leaves as it is."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep.memory.packed import CpuLinear


class AdapterProduct(nn.Module):
    """The change of one layer by one adapter, at a scale; at 0 nothing is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.is_on = False
        # A number of Python's would be a constant of a compiled graph, and each scale would compile it again. A tensor
        # without axes stays in main memory, wherever the others are.
        self.scale = torch.zeros(())

    def set_scale(self, scale: float) -> None:
        """Use another scale from now on."""
        self.is_on = scale != 0
        self.scale.fill_(scale)

    def add_(self, result: Tensor, given: Tensor) -> None:
        """Add the change to the result of a layer, in place: rows [n, out], and what the layer was given, [n, in]."""
        raise NotImplementedError


class LowRank(AdapterProduct):
    """A LoRA: the matrices [out, rank] and [rank, in]."""

    def __init__(self, up: Tensor, down: Tensor) -> None:
        super().__init__()
        self.up, self.down = _fixed(up), _fixed(down)

    def add_(self, result: Tensor, given: Tensor) -> None:
        """Add up (down x), with [n, rank] between."""
        result.addmm_(F.linear(given, self.down).mul_(self.scale), self.up.T)


class Kronecker(AdapterProduct):
    """A LoKr: the Kronecker product of [a, c] and [b, d] for a weight of [a b, c d]."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first, self.second = _fixed(first), _fixed(second)

    def add_(self, result: Tensor, given: Tensor) -> None:
        """Add the product without making the weight: one factor after another, the smaller result between them."""
        (a, c), (b, d) = self.first.shape, self.second.shape
        folded, each = given.reshape(-1, c, d), self.first.expand(given.shape[0], a, c)
        if c * b <= a * d:
            result.view(-1, a, b).baddbmm_(each, F.linear(folded, self.second).mul_(self.scale))
        else:
            between = torch.bmm(each, folded).mul_(self.scale).view(-1, d)
            result.view(-1, b).addmm_(between, self.second.T)


class Convolution(AdapterProduct):
    """A change of a convolution: a whole weight, because it is small.

    The layer's result and what it was given are [n, channels, frames].
    """

    def __init__(self, weight: Tensor, stride: tuple[int, ...], padding: Any) -> None:
        super().__init__()
        self.weight = _fixed(weight)
        self._stride, self._padding = stride, padding

    def add_(self, result: Tensor, given: Tensor) -> None:
        """Add what the convolution with this weight makes."""
        result.add_(F.conv1d(given, self.weight, None, self._stride, self._padding).mul_(self.scale))


class AdaptedLinear(nn.Linear):
    """A linear layer with the weight of another, whose result adapters change."""

    products: Iterable[AdapterProduct]

    def forward(self, given: Tensor) -> Tensor:
        """Return the layer's own result with what each product adds."""
        result = super().forward(given)
        rows, into = given.reshape(-1, self.in_features), result.view(-1, self.out_features)
        for product in self.products:
            if product.is_on:
                product.add_(into, rows)
        return result


class AdaptedCpuLinear(AdaptedLinear, CpuLinear):
    """The same with a packed weight."""


class AdaptedConv1d(nn.Conv1d):
    """The same for a convolution."""

    products: Iterable[AdapterProduct]

    def forward(self, given: Tensor) -> Tensor:
        """Return the layer's own result with what each product adds."""
        result = super().forward(given)
        for product in self.products:
            if product.is_on:
                product.add_(result, given)
        return result


def _fixed(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.contiguous(), requires_grad=False)
