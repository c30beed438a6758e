"""Whatever a language model prefers, what it writes parses, is in range, and is what was asked for."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.fields import (
    BPMS,
    KEYSCALES,
    LONGEST_PLAN_S,
    LYRIC_LANGUAGES,
    SHORTEST_PLAN_S,
    TIMESIGNATURES,
    RequestField,
)
from acestep.lm import parse
from acestep.lm.grammar import MAX_CAPTION_TOKENS, Grammars, SequenceGrammar
from acestep.lm.metadata import Metadata
from acestep.lm.segments import Caption
from acestep.lm.tokenizer import PlannerTokenizer
from acestep.request import MAX_LYRIC_TOKENS
from tests.planner_tokenizers import POLICIES, TOKENIZERS, chooser, write

seeds = st.integers(0, 2**32)
policies = st.sampled_from(POLICIES)
skips = st.sampled_from([frozenset(c) for n in range(len(RequestField)) for c in combinations(RequestField, n)])
longest = st.integers(SHORTEST_PLAN_S, LONGEST_PLAN_S)
knowns = st.builds(
    Metadata,
    bpm=st.sampled_from([0, *BPMS]),
    duration_s=st.sampled_from([0, 1, SHORTEST_PLAN_S]),
    keyscale=st.sampled_from(["", *KEYSCALES]),
    language=st.sampled_from(["", *LYRIC_LANGUAGES]),
    timesignature=st.sampled_from(["", *TIMESIGNATURES]),
)


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PlannerTokenizer:
    return TOKENIZERS[request.param]()


@pytest.fixture(scope="module")
def grammars(tokenizer: PlannerTokenizer) -> Grammars:
    return Grammars(tokenizer)


def check(metadata: Metadata, known: Metadata, skipped: frozenset[RequestField], longest_s: int) -> None:
    assert metadata.known == frozenset(RequestField) - skipped
    for field in known.known - skipped:
        assert metadata.written(field) == known.written(field)
    if RequestField.DURATION in metadata.known - known.known:
        assert SHORTEST_PLAN_S <= metadata.duration_s <= longest_s
    assert not set(metadata.caption) & {"<", "`", "\n", "\r", "\0", "\x7f"}


@settings(max_examples=60)
@given(seed=seeds, policy=policies, skipped=skips, known=knowns, longest_s=longest)
def test_any_plan_parses_and_contains_the_known_fields(tokenizer, grammars, seed, policy, skipped, known, longest_s):
    grammar = grammars.plan(known, skipped, longest_s)
    tokens = write(grammar, chooser(policy, seed, tokenizer.vocabulary.newline))
    assert tokens[-1] == tokenizer.vocabulary.eos
    metadata = parse.read_tokens(tokens, tokenizer).metadata
    check(metadata, known, skipped, longest_s)


@settings(max_examples=20)
@given(seed=seeds, policy=policies, skipped=skips, known=knowns)
def test_any_song_in_words_has_metadata_and_lyrics(tokenizer, grammars, seed, policy, skipped, known):
    tokens = write(grammars.write(known, skipped), chooser(policy, seed, tokenizer.vocabulary.newline))
    writing = parse.read_tokens(tokens, tokenizer)
    check(writing.metadata, known, skipped, LONGEST_PLAN_S)
    assert writing.closed
    vocabulary = tokenizer.vocabulary
    marks = [token for token in tokens if token >= vocabulary.plain]
    assert marks == [vocabulary.think, vocabulary.thought, vocabulary.eos]
    lyrics = tokens[tokens.index(vocabulary.thought) + 1 : -1]
    assert len(lyrics) <= MAX_LYRIC_TOKENS
    assert writing.follows == tokenizer.text(lyrics)


@settings(max_examples=20)
@given(seed=seeds, policy=policies, count=st.integers(1, 3_000))
def test_codes_are_exactly_as_many_as_asked_and_all_legal(tokenizer, grammars, seed, policy, count):
    tokens = write(grammars.codes(count), chooser(policy, seed, tokenizer.vocabulary.newline))
    assert len(parse.codes_in_tokens(tokens, tokenizer)) == count
    assert len(tokens) == count + 1


@settings(max_examples=20)
@given(seed=seeds, policy=policies, kind=st.sampled_from(["plan", "write", "codes"]))
def test_what_may_follow_is_what_is_taken(tokenizer, grammars, seed, policy, kind):
    grammar = {"plan": grammars.plan, "write": grammars.write, "codes": lambda: grammars.codes(9)}[kind]()
    vocabulary = tokenizer.vocabulary
    choose = chooser(policy, seed, vocabulary.newline)
    state = grammar.start
    for _ in range(700):
        if grammar.done(state):
            break
        allowed = grammar.allowed(state)
        edges = [edge for span in allowed.spans[:20] for edge in (span.start - 1, span.start, span.stop - 1, span.stop)]
        outside = [
            -1,
            vocabulary.codes.stop,
            vocabulary.size - 1,
            vocabulary.size,
            *vocabulary.marks,
            vocabulary.newline,
        ]
        for token in {*edges, *outside, *map(ord, " \t`<\r\x00")}:
            assert accepts(grammar, state, token) == (token in allowed)
        assert all(span.stop <= vocabulary.codes.stop for span in allowed.spans)
        state = grammar.after(state, choose(allowed))


def accepts(grammar: SequenceGrammar, state: object, token: int) -> bool:
    try:
        grammar.after(state, token)
    except ValueError:
        return False
    return True


def test_nothing_follows_what_is_complete(tokenizer, grammars):
    grammar = grammars.codes(1)
    state = grammar.after(grammar.after(grammar.start, tokenizer.vocabulary.id(7)), tokenizer.vocabulary.eos)
    assert grammar.done(state)
    assert not accepts(grammar, state, tokenizer.vocabulary.eos)


@settings(max_examples=20)
@given(seed=seeds)
def test_states_are_values_and_sequences_do_not_disturb_each_other(tokenizer, grammars, seed):
    grammar, choose = grammars.plan(), chooser("mixed", seed, tokenizer.vocabulary.newline)
    alone = write(grammar, chooser("mixed", seed, tokenizer.vocabulary.newline))
    state, other = grammar.start, grammar.start
    disturb = chooser("any", seed + 1, tokenizer.vocabulary.newline)
    for token in alone:
        allowed = grammar.allowed(state)
        if not grammar.done(other):
            other = grammar.after(other, disturb(grammar.allowed(other)))
        assert grammar.allowed(state) is allowed
        assert choose(allowed) == token
        assert hash(grammar.after(state, token)) == hash(grammar.after(state, token))
        state = grammar.after(state, token)
    assert grammar.done(state)


@pytest.mark.parametrize("field", [field for field in RequestField if field is not RequestField.CAPTION])
def test_every_value_can_be_chosen_in_the_tokenizers_own_spelling(tokenizer, grammars, field):
    values = {
        RequestField.BPM: map(str, BPMS),
        RequestField.DURATION: map(str, range(SHORTEST_PLAN_S, LONGEST_PLAN_S + 1)),
        RequestField.KEYSCALE: KEYSCALES,
        RequestField.LANGUAGE: LYRIC_LANGUAGES,
        RequestField.TIMESIGNATURE: TIMESIGNATURES,
    }[field]
    grammar = grammars.plan(skipped=frozenset(RequestField) - {field})
    vocabulary = tokenizer.vocabulary
    for value in values:
        line = tokenizer.plain(f"{field}: {value}\n")
        state = grammar.start
        for token in [vocabulary.think, vocabulary.newline, *line, vocabulary.eos]:
            assert token in grammar.allowed(state)
            state = grammar.after(state, token)
        assert grammar.done(state)


@settings(max_examples=30)
@given(seed=seeds, policy=policies, known=knowns)
def test_fields_are_spelled_as_the_tokenizer_spells_them(tokenizer, grammars, seed, policy, known):
    tokens = write(grammars.plan(known, {RequestField.CAPTION}), chooser(policy, seed, tokenizer.vocabulary.newline))
    assert tokens[1:-1] == tokenizer.plain(tokenizer.text(tokens[1:-1]))


@settings(max_examples=20)
@given(seed=seeds)
def test_only_the_language_is_taken_greedily(tokenizer, grammars, seed):
    grammar, choose = grammars.plan(), chooser("mixed", seed, tokenizer.vocabulary.newline)
    state, greedy, tokens = grammar.start, [], []
    while not grammar.done(state):
        allowed = grammar.allowed(state)
        tokens.append(choose(allowed))
        if allowed.greedy:
            greedy.append(tokens[-1])
        state = grammar.after(state, tokens[-1])
    assert tokenizer.text(greedy) == f" {parse.read_tokens(tokens, tokenizer).metadata.language}\n"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_caption_ends_at_its_limit(tokenizer, grammars, policy):
    grammar = grammars.plan(skipped=frozenset(RequestField) - {RequestField.CAPTION})
    tokens = write(grammar, chooser(policy, 1, tokenizer.vocabulary.newline))
    name = len(tokenizer.plain("caption:"))
    assert len(tokens) <= 2 + name + MAX_CAPTION_TOKENS + 2
    assert grammar.most_tokens == 2 + name + MAX_CAPTION_TOKENS + 2


@settings(max_examples=200)
@given(seed=seeds, policy=policies, limit=st.integers(2, 5))
def test_a_caption_of_any_limit_takes_what_it_allows_and_ends(tokenizer, grammars, seed, policy, limit):
    closing = tokenizer.plain("duration:")[0]
    caption = SequenceGrammar([Caption(lexicon=grammars._lexicon, closing=closing, limit=limit)])
    tokens = write(caption, chooser(policy, seed, tokenizer.vocabulary.newline))
    assert tokens[-1] == closing
    assert tokenizer.text(tokens[:-1]).endswith("\n")


def test_equal_sets_of_tokens_are_one_object_in_all_grammars(tokenizer, grammars):
    def sets() -> set[int]:
        grammar, seen = grammars.write(), []
        for policy in POLICIES:
            choose, state = chooser(policy, 0, tokenizer.vocabulary.newline), grammar.start
            while not grammar.done(state):
                seen.append(grammar.allowed(state))
                state = grammar.after(state, choose(seen[-1]))
        kept.extend(seen)
        return {id(allowed) for allowed in seen}

    kept: list[object] = []
    assert sets() == sets()


@pytest.mark.parametrize(
    ("known", "longest_s", "word"),
    [
        (Metadata(caption="mine"), 600, "caption"),
        (Metadata(duration_s=241), 240, "duration_s"),
        (Metadata(), 9, "longest_s"),
        (Metadata(), 601, "longest_s"),
    ],
)
def test_what_cannot_be_written_is_refused(grammars, known, longest_s, word):
    for make in (grammars.plan, grammars.write):
        with pytest.raises(ValueError, match=word):
            make(known, (), longest_s)


def test_a_song_without_codes_is_refused(grammars):
    with pytest.raises(ValueError, match="audio code"):
        grammars.codes(0)
