"""The language model through PyTorch: whole batches in one pass, with the rows of guidance pairs among them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from acestep.checkpoints.lm import LanguageModel
from acestep.devices.base import Device
from acestep.devices.out_of_memory import free_unused, no_tensors_in_traceback, one_out_of_memory_error
from acestep.lm.backends.base import StepsWritten
from acestep.lm.forward import Cache, Decoder, cache_bytes
from acestep.lm.job import Job
from acestep.lm.next_tokens import NextTokens
from acestep.lm.prefill import PREFILL_TOKENS, forward_bytes, prefill_tokens
from acestep.lm.products import Products
from acestep.lm.recorded_step import Stepper
from acestep.lm.sampling import Chooser, Draft, Sampler


class PtBackend:
    """Writes sequences with a model whose weights are on the device inside `use()`.

    `chooser` chooses the tokens; by default they are sampled from the logits. `products`, if others use the model too,
    are those of all of them.
    """

    def __init__(
        self,
        model: LanguageModel,
        device: Device,
        *,
        use: Callable[[], AbstractContextManager[None]] = nullcontext,
        chooser: Chooser | None = None,
        products: Products | None = None,
    ) -> None:
        self._model = model
        self._device = device
        self._use = use
        self._chooser: Chooser = Sampler(device) if chooser is None else chooser
        self._products = products or Products(device)

    @torch.no_grad()
    def write(self, jobs: Sequence[Job], written: StepsWritten) -> list[tuple[int, ...]]:
        drafts = [Draft(job) for job in jobs]
        unfinished = [draft for draft in drafts if not draft.done]
        if unfinished:
            with self._use(), no_tensors_in_traceback():
                self._write(unfinished, written)
        return [tuple(draft.tokens) for draft in drafts]

    def cache_bytes(self, jobs: Sequence[Job]) -> int:
        """Return the bytes of keys and values for these jobs, which are allocated in one step."""
        return cache_bytes(jobs, self._model.module.config, self._model.dtype)

    @torch.no_grad()
    def rehearse(self, jobs: Sequence[Job]) -> None:
        """Process the prompts and take two steps at the end of the cache, where most tokens are allowed."""
        # In a function of its own, as `_write`: what it holds is freed before the weights leave.
        with self._use(), no_tensors_in_traceback():
            self._rehearse(_widest(jobs))

    def close(self) -> None:
        """Do nothing: no data is kept between calls, and the caller owns the weights."""

    def _rehearse(self, drafts: Sequence[Draft]) -> None:
        jobs = [draft.job for draft in drafts]
        cache = Cache(jobs, self._model.module.config, self._model.dtype, self._device.torch_device)
        decoder = Decoder(self._model.module, self._device, cache.longest, self._products)
        chosen = NextTokens(decoder, self._device, self._chooser, drafts)
        states = decoder.read(cache)
        for lane in cache.lanes:
            lane.length = max(lane.length, lane.store.shape[4] - 2)
        for _ in range(min(2, *(job.max_tokens for job in jobs))):
            tokens = chosen.of(cache.rows, states)
            states = decoder.step(cache, [tokens[row.job] for row in cache.rows])
        chosen.of(cache.rows, states)

    def _write(self, drafts: Sequence[Draft], written: StepsWritten) -> None:
        jobs, module = [draft.job for draft in drafts], self._model.module
        most = max(job.max_tokens for job in jobs)
        cache = Cache(jobs, module.config, self._model.dtype, self._device.torch_device)
        decoder = Decoder(module, self._device, cache.longest, self._products)
        stepper = Stepper(decoder, self._device)
        chosen = NextTokens(decoder, self._device, self._chooser, drafts)
        states = self._read(decoder, cache, jobs)
        try:
            for step in range(1, most + 1):
                for i, token in chosen.of(cache.rows, states).items():
                    drafts[i].append(token)
                written(step, most)
                cache.drop({i for i, draft in enumerate(drafts) if draft.done})
                if not cache.lanes:
                    return
                states = stepper.step(cache, [drafts[row.job].tokens[-1] for row in cache.rows], most - step)
        finally:
            stepper.release()

    def _read(self, decoder: Decoder, cache: Cache, jobs: Sequence[Job]) -> Tensor:
        """Return the hidden states after the prompts; if memory runs out in large parts, they are read in small ones.

        A kernel may want a workspace that was not counted, and another program may take memory in between.
        """
        at_once = self._prefill_tokens(jobs)
        if at_once > PREFILL_TOKENS[0]:
            try:
                with one_out_of_memory_error():
                    return decoder.read(cache, at_once)
            except torch.OutOfMemoryError:
                pass
            free_unused(self._device)
        return decoder.read(cache)

    def _prefill_tokens(self, jobs: Sequence[Job]) -> int:
        """Return the prompt tokens in one forward, by what is free now.

        On the CPU the fewest: more are no faster, and a song must not depend on what other programs have taken. So too
        where attention is not fused: the scores of a larger part, which `forward_bytes` does not count, would be in
        memory.
        """
        longest = max(len(prompt) for job in jobs for prompt in job.prompts)
        fused = self._device.grouped_attention and not self._device.shares_host_memory
        if longest <= PREFILL_TOKENS[0] or not fused:
            return PREFILL_TOKENS[0]
        config, itemsize = self._model.module.config, self._model.dtype.itemsize

        def needed(tokens: int) -> int:
            return forward_bytes(config, min(tokens, longest), longest, itemsize)

        return prefill_tokens(self._device.free_bytes(), needed)


def _widest(jobs: Sequence[Job]) -> list[Draft]:
    """Advance jobs to the state where most tokens are allowed, writing the first allowed token at each step."""
    drafts: list[Draft] = []
    followed, steps = None, 0
    for job in jobs:
        # The songs of a request share a grammar, and following it takes long.
        if followed is None or job.grammar is not followed.grammar or job.max_tokens != followed.max_tokens:
            followed, steps = job, _steps_to_widest(job)
        draft = Draft(job)
        for _ in range(steps):
            draft.append(draft.allowed.spans[0].start)
        drafts.append(draft)
    return drafts


def _steps_to_widest(job: Job) -> int:
    draft, choices = Draft(job), []
    while not draft.done:
        choices.append(sum(map(len, draft.allowed.spans)))
        draft.append(draft.allowed.spans[0].start)
    return choices.index(max(choices))
