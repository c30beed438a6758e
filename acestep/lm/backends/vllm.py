"""The language model through vLLM, in this process: whole batches, with both rows of a guidance pair at the same step.

torchao's INT8 weights do not run here; a plan that asks for them uses PyTorch.
"""

from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import torch

from acestep.checkpoints.configs import qwen_architecture_in
from acestep.devices.base import Device
from acestep.devices.out_of_memory import free_unused
from acestep.lm.backends.base import StepsWritten
from acestep.lm.backends.vllm_engine import start, stop
from acestep.lm.backends.vllm_memory import Pool, block_bytes, pool_for
from acestep.lm.backends.vllm_rows import ActiveDrafts, BatchRow, rows_of
from acestep.lm.job import Job
from acestep.lm.sampling import Chooser, Draft, Sampler


class VllmBackend:
    """Writes sequences with an engine for the checkpoint in `folder`; the constructor starts it with the cache `pool`.

    Jobs that need a larger cache start a larger engine. A pool holds every sequence at its full length, so vLLM never
    preempts one. Before anything is written, all prompts are processed in chunks into vLLM's prefix cache. At most one
    block of each prompt then remains, so all rows take their first step together, and every later step too. If the two
    rows of a pair get out of step all the same, their tokens since then are dropped and both start again from what is
    written. Tokens depend only on the job and its logits, so the repeated tokens are the same.
    """

    def __init__(self, folder: Path, device: Device, pool: Pool, *, chooser: Chooser | None = None) -> None:
        self._folder = folder
        self._device = device
        self._pool = self._least = pool
        self._drafts = ActiveDrafts(Sampler(device) if chooser is None else chooser)
        self._block_bytes = block_bytes(qwen_architecture_in(folder), device.dtype.itemsize)
        self._engine: Any = start(folder, device, pool, self._drafts)
        self._asleep = False
        self._requests: dict[str, BatchRow] = {}
        self._ids = count()

    def write(self, jobs: Sequence[Job], written: StepsWritten) -> list[tuple[int, ...]]:
        drafts = [Draft(job) for job in jobs]
        live = {i: draft for i, draft in enumerate(drafts) if not draft.done}
        if live:
            self._make_ready(pool_for(jobs))
            self._drafts.drafts = live
            finished = False
            try:
                self._write(drafts, live, written)
                finished = True
            finally:
                self._drafts.drafts = {}
                # After a failed step the state of the engine is unknown.
                if not finished:
                    self._stop()
        return [tuple(draft.tokens) for draft in drafts]

    def cache_bytes(self, jobs: Sequence[Job]) -> int:
        """Return the bytes of keys and values for these jobs, in whole blocks, minus those that the engine has."""
        held = self._pool.blocks if self._engine is not None and not self._asleep else 0
        return max(0, pool_for(jobs).blocks - held) * self._block_bytes

    def rehearse(self, jobs: Sequence[Job]) -> None:
        """Process sequences as long as the longest that these jobs can become, then take two steps more."""
        self._make_ready(pool_for(jobs))
        for job in jobs:
            for prompt in job.prompts:
                self._ask((*prompt, *[prompt[-1]] * (job.max_tokens - 2)), tokens=min(2, job.max_tokens))
        while self._engine.has_unfinished_requests():
            self._engine.step()

    def rest(self) -> None:
        """Free the device until the next `write`; on CUDA the weights wait in host memory."""
        if self._device.torch_device.type != "cuda":
            self._stop()
        elif self._engine is not None and not self._asleep:
            self._engine.sleep(level=1)
            self._asleep = True
            self._device.empty_cache()

    def close(self) -> None:
        self._stop()

    def _make_ready(self, pool: Pool) -> None:
        room = self._pool.with_room_for(pool)
        if room != self._pool:
            self._stop()
        if self._engine is None:
            self._engine = start(self._folder, self._device, room, self._drafts)
            # Set only after the start: a pool that did not fit must not be requested again by a smaller pass.
            self._pool = room
        elif self._asleep and (problem := self._kept_asleep()):
            self._stop()
            self._pool = self._least
            # Other parts have used the freed memory since; a smaller pass may find enough for a new engine.
            raise torch.OutOfMemoryError(f"vLLM could not wake up: {problem}")
        self._asleep = False

    def _kept_asleep(self) -> str | None:
        """Wake the engine up; return its error text, or None on success."""
        try:
            self._engine.wake_up()
        except RuntimeError as error:
            return str(error) or type(error).__name__
        return None

    def _stop(self) -> None:
        engine, self._engine = self._engine, None
        self._requests.clear()
        if engine is None:
            return
        if self._asleep:
            # A sleeping engine cannot be freed. If there is no memory to wake it up, it holds nothing on the device
            # either.
            with suppress(RuntimeError):
                engine.wake_up()
            self._asleep = False
        stop(engine)
        del engine
        free_unused(self._device)

    def _write(self, drafts: Sequence[Draft], live: dict[int, Draft], written: StepsWritten) -> None:
        most = max(draft.job.max_tokens for draft in drafts)
        self._read([draft.job for draft in live.values()])
        for i, draft in live.items():
            self._begin(i, draft)
        while live:
            tokens = self._step()
            for i, draft in list(live.items()):
                mine = [tokens.get(row) for row in rows_of(i, draft.job)]
                token = mine[0]
                if token is not None and mine.count(token) == len(mine):
                    draft.append(token)
                elif any(other is not None for other in mine):
                    self._drop(i)
                    self._begin(i, draft)
                if draft.done:
                    self._drop(i)
                    del live[i]
            written(max(len(draft.tokens) for draft in drafts), most)

    def _read(self, jobs: Sequence[Job]) -> None:
        """Process every prompt into the prefix cache; the one token that vLLM writes after each is ignored."""
        for prompt in dict.fromkeys(prompt for job in jobs for prompt in job.prompts):
            self._ask(prompt, tokens=1)
        while self._engine.has_unfinished_requests():
            self._engine.step()

    def _begin(self, number: int, draft: Draft) -> None:
        """Start the rows of a draft from the tokens written so far."""
        job = draft.job
        for row in rows_of(number, job):
            prompt = job.prompt if row.wishes else job.unguided
            name = self._ask((*prompt, *draft.tokens), tokens=job.max_tokens - len(draft.tokens), row=row)
            self._requests[name] = row

    def _drop(self, number: int) -> None:
        names = [name for name, row in self._requests.items() if row.draft == number]
        self._engine.abort_request(names)
        for name in names:
            del self._requests[name]

    def _step(self) -> dict[BatchRow, int]:
        """Take one step of the engine; return the new token of each row that has one."""
        return {
            self._requests[output.request_id]: output.outputs[0].token_ids[-1]
            for output in self._engine.step()
            if output.request_id in self._requests and output.outputs[0].token_ids
        }

    def _ask(self, prompt: tuple[int, ...], *, tokens: int, row: BatchRow | None = None) -> str:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        name = str(next(self._ids))
        params = SamplingParams(
            temperature=0,
            max_tokens=tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args={} if row is None else {"row": list(row)},
        )
        self._engine.add_request(name, {"prompt_token_ids": list(prompt)}, params)
        return name
