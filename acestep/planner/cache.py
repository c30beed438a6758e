"""Keys and values of everything read and written so far, preallocated to the last token."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from acestep.models.libraries import Qwen3Config
from acestep.planner.job import Job


class Row(NamedTuple):
    """One sequence that the model reads: a job's own, or the one without its wishes."""

    job: int
    wishes: bool


class Lane:
    """Rows whose prompts are equally long. They stay so, hence nothing is padded and nothing masked while writing.

    `store` [layers, 2, rows, kv_heads, tokens, head_dim] holds keys, then values; the first `len(rows)` are in use,
    up to `length` tokens.
    """

    def __init__(self, rows: Sequence[Row], prompts: Sequence[tuple[int, ...]], store: Tensor) -> None:
        self.rows = list(rows)
        self.prompts = prompts
        self.length = len(prompts[0])
        self.store = store

    def distinct(self) -> Iterator[tuple[tuple[int, ...], slice]]:
        """Every prompt once, and the rows that begin with it."""
        first = 0
        for prompt, alike in groupby(self.prompts):
            after = first + len(list(alike))
            yield prompt, slice(first, after)
            first = after

    def extend(self, store: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put the token [rows, kv_heads, head_dim] into one layer's `store`, behind `length` others.

        Gives all keys and values [rows, kv_heads, length + 1, head_dim].
        """
        keys, values = store[:, : len(self.rows)]
        keys[:, :, self.length], values[:, :, self.length] = key, value
        return keys[:, :, : self.length + 1], values[:, :, : self.length + 1]

    def drop(self, jobs: set[int]) -> None:
        """Forget the rows of finished jobs; rows from the end take their places."""
        for slot in reversed(range(len(self.rows))):
            if self.rows[slot].job in jobs:
                last = self.rows.pop()
                if slot < len(self.rows):
                    self.store[:, :, slot, :, : self.length] = self.store[:, :, len(self.rows), :, : self.length]
                    self.rows[slot] = last


class Cache:
    """The lanes of some jobs; its rows are those of the lanes, one lane after another."""

    def __init__(self, jobs: Sequence[Job], config: Qwen3Config, dtype: torch.dtype, device: torch.device) -> None:
        self.lanes = [
            Lane(rows, prompts, torch.empty(_shape(jobs, rows, len(prompts[0]), config), dtype=dtype, device=device))
            for rows, prompts in _lanes(jobs)
        ]

    @property
    def rows(self) -> list[Row]:
        """The sequences still read."""
        return [row for lane in self.lanes for row in lane.rows]

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence when all is written."""
        return max(lane.store.shape[4] for lane in self.lanes)

    def drop(self, jobs: set[int]) -> None:
        """Forget finished jobs, and lanes that are done with."""
        for lane in self.lanes:
            lane.drop(jobs)
        self.lanes = [lane for lane in self.lanes if lane.rows]


def cache_bytes(jobs: Sequence[Job], config: Qwen3Config, dtype: torch.dtype) -> int:
    """Bytes of a `Cache`."""
    shapes = (_shape(jobs, rows, len(prompts[0]), config) for rows, prompts in _lanes(jobs))
    return sum(torch.Size(shape).numel() * dtype.itemsize for shape in shapes)


def _lanes(jobs: Sequence[Job]) -> list[tuple[list[Row], list[tuple[int, ...]]]]:
    """Rows and their prompts by length of the prompt, rows with the same prompt side by side."""
    prompts = {Row(i, wishes=True): job.prompt for i, job in enumerate(jobs)}
    prompts |= {Row(i, wishes=False): job.unguided for i, job in enumerate(jobs) if job.guided}
    ordered = sorted(prompts, key=lambda row: (len(prompts[row]), prompts[row], row))
    lanes = (list(alike) for _, alike in groupby(ordered, key=lambda row: len(prompts[row])))
    return [(rows, [prompts[row] for row in rows]) for rows in lanes]


def _shape(jobs: Sequence[Job], rows: Sequence[Row], prompt_tokens: int, config: Qwen3Config) -> tuple[int, ...]:
    tokens = prompt_tokens + max(jobs[row.job].max_tokens for row in rows)
    return config.num_hidden_layers, 2, len(rows), config.num_key_value_heads, tokens, config.head_dim
