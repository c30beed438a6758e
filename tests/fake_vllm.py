"""An engine with the requests and steps of vLLM but in random order: any rows may step, and reading takes a while."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from acestep.lm.backends.vllm_memory import Pool
from acestep.lm.backends.vllm_rows import ActiveDrafts, PairedRows
from tests.tiny_planner import VOCABULARY


def logits_after(tokens: Sequence[int]) -> Tensor:
    """The fake model's answer after a sequence, always the same."""
    seed = int.from_bytes(hashlib.sha256(repr(tuple(tokens)).encode()).digest()[:4])
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


class Engine:
    """Steps the rows that `order` names, of all that have asked; `calls` are those about sleep."""

    def __init__(self, active: ActiveDrafts, pool: Pool, order: Random) -> None:
        self.pool = pool
        self.calls: list[str] = []
        self._order = order
        self._requests: dict[str, tuple[list[int], Any, list[int]]] = {}
        self._unread: dict[str, int] = {}
        self._batch: list[str] = []
        made: type[PairedRows] = type("Made", (PairedRows,), {"active": active})
        self._rows = made(None, torch.device("cpu"), False)

    def add_request(self, name: str, prompt: dict[str, list[int]], params: Any) -> None:
        tokens = prompt["prompt_token_ids"]
        assert len(tokens) + params.max_tokens <= self.pool.longest
        self._requests[name] = (tokens, params, [])
        self._unread[name] = self._order.randint(0, 2)
        assert len(self._requests) <= self.pool.rows

    def abort_request(self, names: Sequence[str]) -> None:
        for name in names:
            self._requests.pop(name, None)

    def has_unfinished_requests(self) -> bool:
        return bool(self._requests)

    def step(self) -> list[Any]:
        waiting = list(self._requests)
        stepped = self._order.sample(waiting, self._order.randint(1, len(waiting)))
        added = [(i, self._requests[name][1], [], []) for i, name in enumerate(stepped)]
        removed = list(range(len(self._batch)))
        self._rows.update_state(SimpleNamespace(removed=removed, added=added, moved=[]))
        self._batch = stepped
        logits = torch.stack([logits_after([*self._requests[name][0], *self._requests[name][2]]) for name in stepped])
        chosen = self._rows.apply(logits).argmax(-1).tolist()
        return [output for name, token in zip(stepped, chosen, strict=True) if (output := self._write(name, token))]

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self) -> None:
        self.calls.append("wake up")

    def _write(self, name: str, token: int) -> Any:
        """What a step gives out: nothing of a row that is still being read."""
        if self._unread[name]:
            self._unread[name] -= 1
            return None
        _, params, written = self._requests[name]
        written.append(token)
        if len(written) == params.max_tokens:
            del self._requests[name]
        return SimpleNamespace(request_id=name, outputs=[SimpleNamespace(token_ids=[token])])


class Started:
    """Stands for `start` and `stop` of `vllm_engine` on a card with room for `most_rows`, and remembers the engines.

    `asked` are the rows of every pool asked for, refused ones included.
    """

    def __init__(self, order: Random) -> None:
        self.engines: list[Engine] = []
        self.stopped: list[Engine] = []
        self.asked: list[int] = []
        self.most_rows = 1_000
        self._order = order

    def start(self, folder: Path, device: Any, pool: Pool, active: ActiveDrafts) -> Engine:
        self.asked.append(pool.rows)
        if pool.rows > self.most_rows:
            raise torch.OutOfMemoryError(f"no room for {pool.rows} rows; there is for {self.most_rows}")
        self.engines.append(Engine(active, pool, self._order))
        return self.engines[-1]

    def stop(self, engine: Engine) -> None:
        self.stopped.append(engine)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `import vllm` find what a request is made with."""
    vllm, params = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    vars(vllm).update(SamplingParams=SimpleNamespace)
    vars(params).update(RequestOutputKind=SimpleNamespace(DELTA="delta"))
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
