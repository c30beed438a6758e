"""The forward of a Qwen3 decoder over the library's weights, with activations for a few rows and no score matrices.

Every row gets the library's arithmetic. Grouped queries are treated as further rows of their key's head, so that no
kernel needs the keys expanded to all heads.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep.checkpoints.libraries import Qwen3Config
from acestep.devices.base import Device
from acestep.lm.heads import FEW, MANY, Arithmetic, Rotation, for_together
from acestep.lm.job import Job
from acestep.lm.layer_products import LayerProducts
from acestep.lm.packed import Head, PackedLinear
from acestep.lm.prefill import PREFILL_TOKENS
from acestep.lm.products import Products, is_plain
from acestep.lm.sampling import Spans


class SequenceRow(NamedTuple):
    """One sequence that the model processes: the job's conditional one or its unconditional one."""

    job: int
    wishes: bool


class Lane:
    """Rows whose prompts have the same length. They keep the same length, so writing needs no padding and no mask.

    `store` [layers, 2, rows, kv_heads, tokens, head_dim] holds keys, then values; the first `len(rows)` rows are in
    use, up to `length` tokens.
    """

    def __init__(self, rows: Sequence[SequenceRow], prompts: Sequence[tuple[int, ...]], store: Tensor) -> None:
        self.rows = list(rows)
        self.prompts = prompts
        self.length = len(prompts[0])
        self.store = store

    def distinct(self) -> Iterator[tuple[tuple[int, ...], slice]]:
        """Yield each different prompt once, with the rows that begin with it."""
        first = 0
        for prompt, alike in groupby(self.prompts):
            after = first + len(list(alike))
            yield prompt, slice(first, after)
            first = after

    def extend(self, store: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write the token [rows, kv_heads, head_dim] into one layer's `store`, after the first `length` tokens.

        Returns all keys and values [rows, kv_heads, length + 1, head_dim].
        """
        keys, values = store[:, : len(self.rows)]
        keys[:, :, self.length], values[:, :, self.length] = key, value
        return keys[:, :, : self.length + 1], values[:, :, : self.length + 1]

    def drop(self, jobs: set[int]) -> None:
        """Remove the rows of finished jobs; the last rows move into their places."""
        for slot in reversed(range(len(self.rows))):
            if self.rows[slot].job in jobs:
                last = self.rows.pop()
                if slot < len(self.rows):
                    self.store[:, :, slot, :, : self.length] = self.store[:, :, len(self.rows), :, : self.length]
                    self.rows[slot] = last


class Cache:
    """The lanes of some jobs. Its rows are the rows of the lanes, one lane after another."""

    def __init__(self, jobs: Sequence[Job], config: Qwen3Config, dtype: torch.dtype, device: torch.device) -> None:
        self.lanes = [
            Lane(rows, prompts, torch.empty(_shape(jobs, rows, len(prompts[0]), config), dtype=dtype, device=device))
            for rows, prompts in _lanes(jobs)
        ]

    @property
    def rows(self) -> list[SequenceRow]:
        """The sequences that are not finished."""
        return [row for lane in self.lanes for row in lane.rows]

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence at its full length."""
        return max(lane.store.shape[4] for lane in self.lanes)

    def drop(self, jobs: set[int]) -> None:
        """Remove finished jobs, and lanes without rows."""
        for lane in self.lanes:
            lane.drop(jobs)
        self.lanes = [lane for lane in self.lanes if lane.rows]


def cache_bytes(jobs: Sequence[Job], config: Qwen3Config, dtype: torch.dtype) -> int:
    """Return the bytes of a `Cache` for these jobs."""
    shapes = (_shape(jobs, rows, len(prompts[0]), config) for rows, prompts in _lanes(jobs))
    return sum(torch.Size(shape).numel() * dtype.itemsize for shape in shapes)


def _lanes(jobs: Sequence[Job]) -> list[tuple[list[SequenceRow], list[tuple[int, ...]]]]:
    """Group rows and their prompts by prompt length, with rows of the same prompt next to each other."""
    prompts = {SequenceRow(i, wishes=True): job.prompt for i, job in enumerate(jobs)}
    prompts |= {SequenceRow(i, wishes=False): job.unguided for i, job in enumerate(jobs) if job.guided}
    ordered = sorted(prompts, key=lambda row: (len(prompts[row]), prompts[row], row))
    lanes = (list(alike) for _, alike in groupby(ordered, key=lambda row: len(prompts[row])))
    return [(rows, [prompts[row] for row in rows]) for rows in lanes]


def _shape(
    jobs: Sequence[Job], rows: Sequence[SequenceRow], prompt_tokens: int, config: Qwen3Config
) -> tuple[int, ...]:
    tokens = prompt_tokens + max(jobs[row.job].max_tokens for row in rows)
    return config.num_hidden_layers, 2, len(rows), config.num_key_value_heads, tokens, config.head_dim


Attend = Callable[[Sequence[Tensor], Tensor, Tensor, Tensor], Tensor]
"""The attention of one layer: takes the layer's part of the cache, then queries, keys and values [rows, heads,
head_dim]; returns [rows, heads * head_dim].
"""


class DecoderBlock(nn.Module):
    """One layer over the library's weights; adds to `hidden` in place and returns it."""

    def __init__(self, layer: nn.Module, products: Products) -> None:
        super().__init__()
        self.layer: Any = layer
        self._products = LayerProducts(layer, products)

    def forward(
        self, hidden: Tensor, rotation: Rotation, stored: Sequence[Tensor], attend: Attend, by: Arithmetic
    ) -> Tensor:
        """Compute the layer for `hidden` [rows, width]; `by` is `MANY`, or `FEW` with a `rotation` for it.

        `stored` is the layer's part of the cache.
        """
        layer, attention = self.layer, self.layer.self_attn
        normed = by.norm(layer.input_layernorm, hidden)
        query, key, value = by.heads(attention, self._products, normed, rotation)
        del normed
        attended = attend(stored, query, key, value)
        del query, key, value
        hidden.add_(self._products.of(attention.o_proj, attended))
        del attended
        gated = by.gated(layer.mlp, self._products, by.norm(layer.post_attention_layernorm, hidden))
        return hidden.add_(self._products.of(layer.mlp.down_proj, gated))


class Decoder:
    """Processes prompts into a cache, and after that one token for each row.

    `model` is a `Qwen3ForCausalLM` on the device; `longest` is the largest number of tokens of a sequence. `is_plain`:
    its weights are not quantised. `products` keep from one decoder of the model to the next which form is the fastest.
    """

    def __init__(self, model: Any, device: Device, longest: int, products: Products | None = None) -> None:
        self._body = model.model
        self.is_plain = all(map(is_plain, self._weights()))
        self._products = products or Products(device)
        self._blocks = [DecoderBlock(layer, self._products) for layer in self._body.layers]
        # A model that is noise is not packed, and its head shares a few pages of memory too.
        packs = any(isinstance(module, PackedLinear) for module in self._body.modules())
        self._head = Head(model.lm_head.weight, self._products.product, packs=packs)
        self._device = device
        at = torch.arange(longest, device=device.torch_device)[None]
        self._cos, self._sin = (table[0] for table in self._body.rotary_emb(self._body.norm.weight, at))

    def can_record(self, rows: int) -> bool:
        """Return whether a step of so many rows can be recorded (`Products.can_record`), which is known after one."""
        return all(self._products.can_record(weight, rows) for weight in self._weights())

    def read(self, cache: Cache, at_once: int = PREFILL_TOKENS[0]) -> Tensor:
        """Fill the cache with the prompts; return the hidden state of each last token [rows, width].

        Prompts are processed one by one, `at_once` tokens in a forward; equal prompts only once.
        """
        made = []
        for lane in cache.lanes:
            for prompt, rows in lane.distinct():
                made.append(self._prompt(lane, prompt, rows.start, at_once).expand(rows.stop - rows.start, -1))
                first, others = rows.start, slice(rows.start + 1, rows.stop)
                lane.store[:, :, others, :, : lane.length] = lane.store[:, :, first, None, :, : lane.length]
        return torch.cat(made)

    def step(self, cache: Cache, tokens: Sequence[int]) -> Tensor:
        """Process one more token for every row of the cache; return the hidden states [rows, width]."""
        lanes = cache.lanes
        at = [(lane.length, len(lane.rows)) for lane in lanes]
        rotation = Rotation(
            *(torch.cat([table[length].expand(rows, -1) for length, rows in at]) for table in (self._cos, self._sin))
        )

        def attend(stored: Sequence[Tensor], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            def seen(number: int, rows: slice) -> tuple[Tensor, Tensor, None]:
                return *lanes[number].extend(stored[number], key[rows], value[rows]), None

            return _attend_by_lane(lanes, query, seen)

        states = self._through(self._embed(tokens), rotation, lanes, attend)
        for lane in lanes:
            lane.length += 1
        return states

    def step_at(self, lanes: Sequence[Lane], tokens: Tensor, lengths: Sequence[Tensor], reach: int) -> Tensor:
        """Process one more token for every row; return the hidden states [rows, width], as `step` does.

        `tokens` [rows] and the length [1] of each lane are on the device, and no lane is longer than `reach` tokens
        afterwards. So a recording of it can be repeated for other tokens and lengths: it always reads `reach` keys,
        of which the later ones, which must not be NaN, count nothing. The lanes' own lengths are neither read nor
        changed.
        """
        counts = [len(lane.rows) for lane in lanes]
        rotation = Rotation(
            *(
                torch.cat([table[at].expand(rows, -1) for at, rows in zip(lengths, counts, strict=True)])
                for table in (self._cos, self._sin)
            )
        )
        dtype = self._cos.dtype
        masks = [_seen(min(reach, lane.store.shape[4]), at, dtype) for lane, at in zip(lanes, lengths, strict=True)]

        def attend(stored: Sequence[Tensor], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            def seen(number: int, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
                keys, values = stored[number][:, : len(lanes[number].rows), :, : len(masks[number])]
                for kept, new in ((keys, key), (values, value)):
                    kept.index_copy_(2, lengths[number], new[rows][:, :, None])
                return keys, values, masks[number].expand(1, 1, 1, -1)

            return _attend_by_lane(lanes, query, seen)

        return self._through(F.embedding(tokens, self._body.embed_tokens.weight), rotation, lanes, attend)

    def _weights(self) -> Iterator[Tensor]:
        """One weight of each layer; the others have the same format."""
        return (layer.mlp.up_proj.weight for layer in self._body.layers)

    def _through(self, hidden: Tensor, rotation: Rotation, lanes: Sequence[Lane], attend: Attend) -> Tensor:
        """Compute all layers and the last norm for the rows of all lanes [rows, width]."""
        turns = for_together(rotation)
        for number, block in enumerate(self._blocks):
            block(hidden, turns, [lane.store[number] for lane in lanes], attend, FEW)
        normed: Tensor = self._body.norm(hidden)
        return normed

    def logits(self, states: Tensor, spans: Spans) -> Tensor:
        """Return float32 logits [rows, ids] for the ids in `spans` only."""
        return self._head.logits(states, spans)

    def _prompt(self, lane: Lane, prompt: Sequence[int], row: int, at_once: int) -> Tensor:
        """Process a prompt into a row of the cache; return the hidden state of its last token [1, width]."""
        for start in range(0, len(prompt), at_once):
            part = slice(start, min(len(prompt), start + at_once))
            hidden, attend = self._embed(prompt[part]), self._attend_to_all_before(part)
            rotation = Rotation(self._cos[part], self._sin[part])
            for number, block in enumerate(self._blocks):
                block(hidden, rotation, [lane.store[number, :, row]], attend, MANY)
        normed: Tensor = self._body.norm(hidden[-1:])
        return normed

    def _attend_to_all_before(self, part: slice) -> Attend:
        """Return the attention for a part of a prompt; it also stores that part's keys and values."""
        mask = self._causal(part)

        def attend(stored: Sequence[Tensor], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = stored[0]
            keys[:, part], values[:, part] = key.transpose(0, 1), value.transpose(0, 1)
            return _attend_prompt(query, keys[:, : part.stop], values[:, : part.stop], mask)

        return attend

    def _embed(self, tokens: Sequence[int]) -> Tensor:
        return F.embedding(self._device.upload(torch.tensor(tokens), "prompt"), self._body.embed_tokens.weight)

    def _causal(self, part: slice) -> Tensor:
        """Return the additive mask [rows, tokens so far] of a part of a prompt."""
        i = torch.arange(part.start, part.stop, device=self._device.torch_device)[:, None]
        j = torch.arange(part.stop, device=self._device.torch_device)[None]
        mask = torch.zeros(len(i), part.stop, dtype=self._cos.dtype, device=self._device.torch_device)
        return mask.masked_fill_(j > i, torch.finfo(mask.dtype).min)


Seen = Callable[[int, slice], tuple[Tensor, Tensor, Tensor | None]]
"""Takes the number of a lane and its rows among all; returns the keys and values that they see, and the mask if any."""


def _attend_by_lane(lanes: Sequence[Lane], query: Tensor, seen: Seen) -> Tensor:
    """Return the attention of one token `query` [rows, heads, head_dim] of each row, as [rows, heads * head_dim]."""
    result = torch.empty_like(query)
    first = 0
    for number, lane in enumerate(lanes):
        rows = slice(first, first + len(lane.rows))
        keys, values, mask = seen(number, rows)
        shape = (len(lane.rows), keys.shape[1], -1, keys.shape[3])
        attended = F.scaled_dot_product_attention(query[rows].view(shape), keys, values, attn_mask=mask)
        result[rows].view(shape).copy_(attended)
        first = rows.stop
    return result.flatten(1)


def _seen(tokens: int, length: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the additive mask [tokens] that leaves the tokens up to the place `length` [1]."""
    places = torch.arange(tokens, device=length.device)
    return torch.zeros(tokens, dtype=dtype, device=length.device).masked_fill_(places > length, torch.finfo(dtype).min)


def _attend_prompt(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Return masked attention of `query` [rows, heads, dim] over [kv_heads, tokens, dim], as [rows, heads * dim]."""
    rows, heads, dim = query.shape
    groups = heads // keys.shape[0]
    grouped = query.view(rows, -1, groups, dim).permute(1, 2, 0, 3).reshape(1, -1, groups * rows, dim)
    attended = F.scaled_dot_product_attention(grouped, keys[None], values[None], attn_mask=mask.repeat(groups, 1))
    return attended.view(-1, groups, rows, dim).permute(2, 0, 1, 3).reshape(rows, -1)
