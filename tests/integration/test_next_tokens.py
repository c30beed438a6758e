"""Between two steps a card waits for nothing but the tokens."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from acestep.checkpoints.lm import build_lm
from acestep.lm.backends.pt import PtBackend
from acestep.lm.forward import Cache, Decoder
from acestep.lm.job import Allowed, Job
from acestep.lm.sampling import Draft, Sampler, Spans
from tests.copying_cards import EagerCard
from tests.grammars import Counted, job_of

VOCABULARY = 900
STEPS = 9


class Log(EagerCard):
    """A card that notes copies to it, and what is done around them."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def upload(self, host: Tensor, owner: str) -> Tensor:
        if owner == "prompt":
            self.events.append("upload")
        return super().upload(host, owner)


class Choosing(Sampler):
    """A sampler that notes when it has the tokens."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self._log = log

    def choose(self, logits: Tensor, spans: Spans, drafts: Sequence[Draft]) -> list[int]:
        chosen = super().choose(logits, spans, drafts)
        self._log.events.append("chosen")
        return chosen


class Asked(Counted):
    """A grammar that notes when it is asked what may come next."""

    def __init__(self, length: int, spans: range, log: Log) -> None:
        super().__init__(length, spans)
        self._log = log

    def allowed(self, state: int) -> Allowed:
        self._log.events.append("allowed")
        return super().allowed(state)


@pytest.mark.parametrize("guided", [False, True])
def test_a_step_waits_only_for_the_tokens(guided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    log, launch = Log(), Decoder.step

    def step(self: Decoder, cache: Cache, tokens: Sequence[int]) -> Tensor:
        states = launch(self, cache, tokens)
        log.events.append("launched")
        return states

    monkeypatch.setattr(Decoder, "step", step)
    jobs = [
        job_of(Asked(STEPS, range(VOCABULARY), log), range(20), range(9) if guided else (), seed=seed, max_tokens=STEPS)
        for seed in range(2)
    ]
    PtBackend(build_lm("tiny", dtype=torch.float32, vocab_size=VOCABULARY), log, chooser=Choosing(log)).write(
        jobs, lambda *_: None
    )
    between = " ".join(log.events).split("launched")[1:-1]
    assert len(between) == STEPS - 2
    # After the launch the grammars are asked, while the card computes; after the choice only the tokens are copied.
    assert [part.split() for part in between] == [["allowed", "allowed", "chosen", "upload"]] * (STEPS - 2)


def test_rows_that_left_are_found_anew() -> None:
    """Songs of several lengths, among them forced tokens, are what each of them is alone."""
    model = build_lm("tiny", dtype=torch.float32, vocab_size=VOCABULARY)
    jobs: list[Job] = [
        job_of(Counted(length, range(VOCABULARY)), range(20), range(9) if length % 2 else (), seed=length)
        for length in (3, 8, 5, 6)
    ]

    def written(some: Sequence[Job]) -> list[Any]:
        return PtBackend(model, EagerCard()).write(some, lambda *_: None)

    assert written(jobs) == [written([job])[0] for job in jobs]
