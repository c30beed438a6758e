"""The grammar of what the language model writes: the allowed next tokens. Its output can be parsed for any logits."""

from collections.abc import Collection, Sequence

from acestep.fields import LONGEST_PLAN_S, SHORTEST_PLAN_S, RequestField
from acestep.lm.job import Allowed, State
from acestep.lm.lexicon import Lexicon
from acestep.lm.metadata import NO_METADATA, Metadata
from acestep.lm.segments import BEGINNING, ENDED, Anything, Caption, CodeSegment, Literal, Lyrics, Segment, TrieSegment
from acestep.lm.tokenizer import PlannerTokenizer
from acestep.request import MAX_LYRIC_TOKENS

MAX_CAPTION_TOKENS = 512


class SequenceGrammar:
    """A grammar of segments in sequence. A state is (index of the segment, cursor in it)."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = tuple(segments)

    @property
    def start(self) -> State:
        return (0, *BEGINNING)

    @property
    def most_tokens(self) -> int:
        """The largest number of tokens that can be written."""
        return sum(segment.most_tokens for segment in self._segments)

    def allowed(self, state: State) -> Allowed:
        segment: Segment = self._segments[state[0]]
        return segment.allowed((state[1], state[2]))

    def after(self, state: State, token: int) -> State:
        index, first, second = state
        if index == len(self._segments):
            raise ValueError("the sequence is complete: nothing may follow")
        place = self._segments[index].after((first, second), token)
        return (index + 1, *BEGINNING) if place == ENDED else (index, *place)

    def done(self, state: State) -> bool:
        return bool(state[0] == len(self._segments))


class Grammars:
    """Makes the grammars for one tokenizer. The shared tables are computed once, by the constructor."""

    def __init__(self, tokenizer: PlannerTokenizer) -> None:
        self._lexicon = Lexicon(tokenizer)

    def plan(
        self, known: Metadata = NO_METADATA, skipped: Collection[RequestField] = (), longest_s: int = LONGEST_PLAN_S
    ) -> SequenceGrammar:
        """Return the grammar of the thinking before a song: metadata, then the end of the turn.

        `known` fields are written with their values. `skipped` fields are left out, even if they are known. The model
        chooses the others, with a duration of at most `longest_s` seconds. Raises `ValueError` for a known caption,
        which belongs in the prompt, and for a duration above `longest_s`.
        """
        return SequenceGrammar(self._thinking(known, skipped, longest_s, self._lexicon.vocabulary.eos))

    def write(
        self, known: Metadata = NO_METADATA, skipped: Collection[RequestField] = (), longest_s: int = LONGEST_PLAN_S
    ) -> SequenceGrammar:
        """Return the grammar of a whole song in words (understand, create, format): as in `plan`, then the lyrics."""
        thinking = self._thinking(known, skipped, longest_s, self._lexicon.vocabulary.thought)
        return SequenceGrammar([*thinking, Lyrics(lexicon=self._lexicon, limit=MAX_LYRIC_TOKENS)])

    def codes(self, count: int) -> SequenceGrammar:
        """Return the grammar of exactly `count` audio codes and the end of the turn.

        Raises `ValueError` if `count` is below 1.
        """
        if count < 1:
            raise ValueError(f"a song takes at least 1 audio code, got {count}")
        end = Literal(tokens=(self._lexicon.vocabulary.eos,), lexicon=self._lexicon)
        return SequenceGrammar([CodeSegment(lexicon=self._lexicon, count=count), end])

    def _thinking(self, known: Metadata, skipped: Collection[RequestField], longest_s: int, end: int) -> list[Segment]:
        _check(known, skipped, longest_s)
        lexicon = self._lexicon
        newline = lexicon.vocabulary.newline
        segments: list[Segment] = []
        # From the last field to the first, because a caption must know the token that follows its last line.
        forced: tuple[int, ...] = (end,)
        for field in reversed([field for field in RequestField if field not in skipped]):
            if value := known.written(field):
                forced = (*lexicon.name(field), *lexicon.value(value), newline, *forced)
                continue
            chosen: Segment
            if field is RequestField.CAPTION:
                chosen = Caption(lexicon=lexicon, closing=forced[0], limit=MAX_CAPTION_TOKENS)
                forced = forced[1:]
            else:
                chosen = TrieSegment(trie=lexicon.choices(field, longest_s))
            segments = [chosen, *([Literal(tokens=forced, lexicon=lexicon)] if forced else []), *segments]
            forced = lexicon.name(field)
        return [Literal(tokens=(lexicon.vocabulary.think, newline, *forced), lexicon=lexicon), *segments]


class FreeGrammars(Grammars):
    """Grammars without rules for words, with the same length limits as `Grammars`; the rules for codes are the same.

    They show what the rules bring and cost: their output need not parse, and known fields are ignored.
    """

    def plan(
        self,
        known: Metadata = NO_METADATA,  # noqa: ARG002 as it is overridden
        skipped: Collection[RequestField] = (),  # noqa: ARG002
        longest_s: int = LONGEST_PLAN_S,  # noqa: ARG002
    ) -> SequenceGrammar:
        """Return a grammar that allows any token up to the end of the thinking or of the turn."""
        return SequenceGrammar([self._anything(MAX_CAPTION_TOKENS, end_with_thinking=True)])

    def write(
        self,
        known: Metadata = NO_METADATA,  # noqa: ARG002
        skipped: Collection[RequestField] = (),  # noqa: ARG002
        longest_s: int = LONGEST_PLAN_S,  # noqa: ARG002
    ) -> SequenceGrammar:
        """Return a grammar that allows any token up to the end of the turn."""
        return SequenceGrammar([self._anything(MAX_CAPTION_TOKENS + MAX_LYRIC_TOKENS, end_with_thinking=False)])

    def _anything(self, limit: int, *, end_with_thinking: bool) -> Anything:
        vocabulary = self._lexicon.vocabulary
        ends = {vocabulary.eos, vocabulary.thought} if end_with_thinking else {vocabulary.eos}
        return Anything(lexicon=self._lexicon, limit=limit, ends=frozenset(ends))


def _check(known: Metadata, skipped: Collection[RequestField], longest_s: int) -> None:
    if known.caption and RequestField.CAPTION not in skipped:
        raise ValueError("a caption cannot be known to the grammar: it is part of the prompt, skipped or left open")
    if not SHORTEST_PLAN_S <= longest_s <= LONGEST_PLAN_S:
        raise ValueError(f"longest_s must be {SHORTEST_PLAN_S} to {LONGEST_PLAN_S} seconds, got {longest_s}")
    if known.duration_s > longest_s:
        raise ValueError(f"duration_s is {known.duration_s}, and a plan reaches {longest_s} seconds here")
