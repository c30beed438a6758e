"""The memory of adapters that stay apart from the weights, from their files. Imports no torch."""

from collections.abc import Iterable
from math import prod

from acestep.adapter_memory import AdapterMemory
from acestep.adapters.choice import Adapter
from acestep.adapters.files import AdapterFile, ChangedLayer, read_adapter_file
from acestep.adapters.names import block_of, is_of_convolution


def memory_of(files: Iterable[AdapterFile]) -> AdapterMemory:
    """Return the memory of adapters: of each product of `acestep.adapters.products` its tensors."""
    blocks: dict[str, tuple[int, ...]] = {}
    others: tuple[int, ...] = ()
    widest = 0
    for file in files:
        for name, layer in file.layers.items():
            tensors, row = _product_values(name, layer)
            widest = max(widest, row)
            if (block := block_of(name)) is None:
                others += tensors
            else:
                blocks[block] = blocks.get(block, ()) + tensors
    return AdapterMemory(blocks=tuple(blocks.values()), others=others, row_values=widest)


def memory_apart(adapters: Iterable[Adapter]) -> AdapterMemory:
    """Return the memory of those adapters that stay apart; raise `InvalidInputError` for a file that is no adapter.

    One that is named twice is attached once.
    """
    return memory_of(read_adapter_file(path) for path in dict.fromkeys(one.path for one in adapters if not one.fused))


def _product_values(name: str, layer: ChangedLayer) -> tuple[tuple[int, ...], int]:
    """The values of each tensor of a layer's product, and those that it takes for one row of activations."""
    if is_of_convolution(name):
        return (prod(layer.shape),), layer.shape[0]
    if layer.factors is None:
        rank = layer.rank or 0
        return (layer.shape[0] * rank, rank * layer.shape[1]), rank
    (a, c), (b, d) = layer.factors[0], layer.factors[1][:2]
    return (a * c, b * d), min(c * b, a * d)
