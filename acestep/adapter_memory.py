"""The memory of adapters that stay apart from the weights, before it is known how they are placed."""

import msgspec


class AdapterMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of values: of each tensor in each block of the transformer that they change, and of each other tensor.

    `row_values` are those that the product with one row of activations takes besides the layer's result.
    """

    blocks: tuple[tuple[int, ...], ...] = ()
    others: tuple[int, ...] = ()
    row_values: int = 0

    @property
    def tensors(self) -> tuple[int, ...]:
        """The values of every tensor."""
        return (*(values for block in self.blocks for values in block), *self.others)


NO_ADAPTERS = AdapterMemory()
