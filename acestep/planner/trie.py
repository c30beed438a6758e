"""A choice among sequences of tokens, walked one token at a time."""

from collections.abc import Iterable, Sequence

import msgspec

from acestep.planner.job import Allowed


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a trie: what may come next, and which node each token leads to."""

    allowed: Allowed
    following: dict[int, int]


class Trie(msgspec.Struct, frozen=True, kw_only=True):
    """Sequences that share their beginnings, each closed by the same end. Node 0 is the beginning.

    `depth` is the tokens of the longest sequence, its end included. The end is allowed where a sequence is complete,
    and leads to no node.
    """

    nodes: tuple[Node, ...]
    depth: int


def trie(sequences: Iterable[Sequence[int]], end: int, *, greedy: bool = False) -> Trie:
    """The trie of sequences, each followed by `end`; raises `ValueError` when one is empty or holds it, or for none."""
    branches: list[dict[int, int]] = [{}]
    complete: set[int] = set()
    depth = 0
    for sequence in sequences:
        if not sequence or end in sequence:
            raise ValueError(f"a choice must be tokens other than the end {end}, got {sequence}")
        place = 0
        for token in sequence:
            if token not in branches[place]:
                branches.append({})
                branches[place][token] = len(branches) - 1
            place = branches[place][token]
        complete.add(place)
        depth = max(depth, len(sequence) + 1)
    if not complete:
        raise ValueError("there is nothing to choose from")
    nodes = tuple(
        Node(
            allowed=Allowed(spans=spans({*branch, end} if place in complete else branch), greedy=greedy),
            following=branch,
        )
        for place, branch in enumerate(branches)
    )
    return Trie(nodes=nodes, depth=depth)


def spans(tokens: Iterable[int]) -> tuple[range, ...]:
    """The fewest ascending ranges that hold exactly these ids."""
    found: list[range] = []
    for token in sorted(set(tokens)):
        if found and found[-1].stop == token:
            found[-1] = range(found[-1].start, token + 1)
        else:
            found.append(range(token, token + 1))
    return tuple(found)
