"""The work of a stage: what its kernels compute and move, whatever the card and its speed."""

from typing import Annotated, Self

import msgspec
from msgspec import UNSET, UnsetType

_Count = Annotated[int, msgspec.Meta(ge=0)]


class KernelSums(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The kernels of one kind together: operations, bytes read and written in the card's memory, and their number.

    A multiplication and an addition are two operations.
    """

    flops: _Count = 0
    read_bytes: _Count = 0
    written_bytes: _Count = 0
    launches: _Count = 0

    @property
    def moved_bytes(self) -> int:
        """All bytes that cross the card's memory bus."""
        return self.read_bytes + self.written_bytes

    def plus(self, other: Self, times: int = 1, of: int = 1) -> Self:
        """The sum with `times / of` of the other; a negative number takes it away."""
        fields = ((getattr(self, name), getattr(other, name)) for name in self.__struct_fields__)
        return type(self)(*(mine + times * theirs // of for mine, theirs in fields))


class WorkTotals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Five sums that tell one amount of work from another: what a record keeps of a stage's work.

    Records of earlier releases have no `waits`.
    """

    flops: _Count
    memory_bytes: _Count
    launches: _Count
    transferred_bytes: _Count
    waits: _Count | UnsetType = UNSET


class Work(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stage computes by kinds of kernels, the bytes between host and card, and the waits of the host.

    `products` are matrix products. `others` do little arithmetic on each byte, so their operations are not counted.
    At each of the `waits` the host queues nothing more until the card has done all it was given: it copies a result to
    the host, or waits for the card and nothing else.
    """

    products: KernelSums = KernelSums()
    convolutions: KernelSums = KernelSums()
    attention: KernelSums = KernelSums()
    others: KernelSums = KernelSums()
    transferred_bytes: _Count = 0
    waits: _Count = 0

    @property
    def kernels(self) -> tuple[KernelSums, ...]:
        """The four kinds of kernels."""
        return self.products, self.convolutions, self.attention, self.others

    @property
    def totals(self) -> WorkTotals:
        """The sums over all kinds of kernels."""
        return WorkTotals(
            flops=sum(kind.flops for kind in self.kernels),
            memory_bytes=sum(kind.moved_bytes for kind in self.kernels),
            launches=sum(kind.launches for kind in self.kernels),
            transferred_bytes=self.transferred_bytes,
            waits=self.waits,
        )

    def plus(self, other: Self, times: int = 1, of: int = 1) -> Self:
        """The sum with `times / of` of the other; a negative number takes it away."""
        return type(self)(
            products=self.products.plus(other.products, times, of),
            convolutions=self.convolutions.plus(other.convolutions, times, of),
            attention=self.attention.plus(other.attention, times, of),
            others=self.others.plus(other.others, times, of),
            transferred_bytes=self.transferred_bytes + times * other.transferred_bytes // of,
            waits=self.waits + times * other.waits // of,
        )
