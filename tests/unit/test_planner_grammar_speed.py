"""At the full vocabulary the grammar costs next to nothing: to read once, and at each token."""

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from acestep.lm import tokenizer as tokenizer_module
from acestep.lm.grammar import Grammars, SequenceGrammar
from acestep.lm.tokenizer import HubPlannerTokenizer
from tests.planner_tokenizers import chooser, with_marks, write

PLAIN = 151_643
STARTUP_S = 1.5
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


def seconds(work: Callable[[], object]) -> Iterator[float]:
    """Processor seconds of a few runs: a busy machine slows a run down and never speeds one up."""
    for _ in range(5):
        before = time.process_time()
        work()
        yield time.process_time() - before


@pytest.fixture
def tokenizer(loaded: Tokenizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubPlannerTokenizer:
    monkeypatch.setattr(tokenizer_module, "load_backend", lambda _: loaded)
    return HubPlannerTokenizer(tmp_path)


def test_the_start_is_cheap(tokenizer: HubPlannerTokenizer, tmp_path: Path) -> None:
    assert tokenizer.vocabulary.size == PLAIN + 5 + 65_535
    assert any(took < STARTUP_S for took in seconds(lambda: Grammars(HubPlannerTokenizer(tmp_path)).write()))


@pytest.mark.parametrize("grammar", [Grammars.write, partial(Grammars.codes, count=1_000)], ids=["words", "codes"])
def test_each_step_is_cheap(grammar: Callable[[Grammars], SequenceGrammar], tokenizer: HubPlannerTokenizer) -> None:
    written = grammar(Grammars(tokenizer))
    script = write(written, chooser("any", 0, tokenizer.vocabulary.newline))

    def walk() -> None:
        state = written.start
        for token in script:
            written.allowed(state)
            state = written.after(state, token)

    assert any(took / len(script) < STEP_S for took in seconds(walk))
