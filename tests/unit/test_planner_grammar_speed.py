"""At the full vocabulary the grammar costs next to nothing: to read once, and at each token."""

import random
import time
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from acestep.planner import tokenizer as tokenizer_module
from acestep.planner.grammar import Grammars
from acestep.planner.tokenizer import HubPlannerTokenizer
from tests.planner_tokenizers import chooser, with_marks, write

PLAIN = 151_643
STARTUP_S = 1.0
STEP_S = 50e-6


@pytest.fixture(scope="module")
def loaded() -> Tokenizer:
    """A tokenizer of the checkpoints' size whose words stand for nothing."""
    draw = random.Random(0)  # noqa: S311 no secrets here
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    letters = [chr(value) for value in printable] + [chr(256 + place) for place in range(256 - len(printable))]
    names = dict.fromkeys(letters)
    while len(names) < PLAIN:
        names["".join(draw.choices(letters, k=draw.randint(2, 9)))] = None
    backend = Tokenizer(models.BPE({name: place for place, name in enumerate(names)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return with_marks(backend)


def test_the_start_and_each_step_are_cheap(loaded: Tokenizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tokenizer_module, "_load", lambda _: loaded)
    before = time.process_time()
    tokenizer = HubPlannerTokenizer(tmp_path)
    grammars = Grammars(tokenizer)
    grammar = grammars.write()
    assert time.process_time() - before < STARTUP_S
    assert tokenizer.vocabulary.size == PLAIN + 5 + 65_535

    for written in (grammar, grammars.codes(1_000)):
        script = write(written, chooser("any", 0, tokenizer.vocabulary.newline))
        state, before = written.start, time.process_time()
        for token in script:
            written.allowed(state)
            state = written.after(state, token)
        assert (time.process_time() - before) / len(script) < STEP_S
