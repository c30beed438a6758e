"""The language model's prompts, exactly as in its training; a user's words always stay plain text.

Source: the prompts and the chat template of ACE-Step 1.5's 5 Hz language models.
"""

from collections.abc import Callable
from enum import StrEnum

import msgspec

from acestep.checkpoints.tokenizer import encodable
from acestep.lm.grammar import MAX_CAPTION_TOKENS
from acestep.lm.metadata import Metadata, cot_yaml
from acestep.lm.tokenizer import PlannerTokenizer
from acestep.lm.vocabulary import CODES_PER_SECOND, IM_END, IM_START, THINK, THOUGHT, code_name
from acestep.request import INSTRUMENTAL, MAX_DURATION_S, MAX_LYRIC_TOKENS
from acestep.thinking import LONGEST_PROMPT_TOKENS, NO_NEGATIVE

COMPOSE = "Generate audio semantic tokens based on the given conditions:"
UNDERSTAND = "Understand the given musical conditions and describe the audio semantics accordingly:"
CREATE = "Expand the user's input into a more detailed and specific musical description:"
FORMAT = "Format the user's input into a more detailed and specific musical description:"

MAX_THOUGHT_TOKENS = 580
LONGEST_UNGUIDED_TOKENS = LONGEST_PROMPT_TOKENS - MAX_THOUGHT_TOKENS - MAX_LYRIC_TOKENS
"""The longest thinking that a prompt repeats, and the longest unguided prompt, which has neither
thinking nor lyrics; all in the checkpoints' tokens.
"""

_MOST_CODES = int(MAX_DURATION_S) * CODES_PER_SECOND


class SpecialToken(StrEnum):
    """A special token that a prompt may contain."""

    START = IM_START
    END = IM_END
    THINK = THINK
    THOUGHT = THOUGHT


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt in pieces: special tokens, text that is always plain, and audio codes."""

    pieces: tuple[SpecialToken | str | tuple[int, ...], ...]

    @property
    def text(self) -> str:
        """Return the prompt as text, in the form used in training."""
        return "".join(
            encodable(piece) if isinstance(piece, str) else "".join(map(code_name, piece)) for piece in self.pieces
        )

    def tokens(self, tokenizer: PlannerTokenizer) -> tuple[int, ...]:
        """Return the prompt's token ids."""
        vocabulary = tokenizer.vocabulary
        marks = {
            SpecialToken.START: vocabulary.im_start,
            SpecialToken.END: vocabulary.eos,
            SpecialToken.THINK: vocabulary.think,
            SpecialToken.THOUGHT: vocabulary.thought,
        }
        tokens: list[int] = []
        for piece in self.pieces:
            if isinstance(piece, SpecialToken):
                tokens.append(marks[piece])
            else:
                tokens += tokenizer.plain(piece) if isinstance(piece, str) else map(vocabulary.id, piece)
        return tuple(tokens)


class SongText(msgspec.Struct, frozen=True, kw_only=True):
    """The words that a user wrote for a song. `negative` is the negative prompt for guidance, or `NO_NEGATIVE`."""

    caption: str
    lyrics: str = ""
    negative: str = NO_NEGATIVE

    @property
    def negated(self) -> bool:
        """Whether there is a negative prompt."""
        return self.negative.strip() not in ("", NO_NEGATIVE)


def fitted(words: SongText, tokenizer: PlannerTokenizer) -> tuple[SongText, tuple[str, ...]]:
    """Return the words shortened to what a prompt holds, and a warning for each text that was too long."""
    caption, cut_caption = _fitted("caption", words.caption, MAX_CAPTION_TOKENS, tokenizer)
    lyrics, cut_lyrics = _fitted("lyrics", words.lyrics, MAX_LYRIC_TOKENS, tokenizer)
    negative, cut_negative = _fitted("negative prompt", words.negative, MAX_CAPTION_TOKENS, tokenizer)
    warnings = (*cut_caption, *cut_lyrics, *cut_negative)
    return SongText(caption=caption, lyrics=lyrics, negative=negative), warnings


def fitted_query(query: str, tokenizer: PlannerTokenizer) -> tuple[str, tuple[str, ...]]:
    """Return a wish for a song shortened to what a prompt holds, and a warning if it was too long."""
    return _fitted("wish", query, MAX_CAPTION_TOKENS, tokenizer)


def fitted_thought(metadata: Metadata, tokenizer: PlannerTokenizer) -> Metadata:
    """Return the metadata with its caption shortened to the part of the thinking that a prompt repeats."""

    def excess(caption: str) -> int:
        shortened = msgspec.structs.replace(metadata, caption=caption)
        return len(tokenizer.plain(cot_yaml(shortened))) - MAX_THOUGHT_TOKENS

    return msgspec.structs.replace(metadata, caption=_shortened(metadata.caption, excess, tokenizer))


def plan_prompt(words: SongText) -> Prompt:
    """Return the prompt for the thinking before a song."""
    return _asked(COMPOSE, f"{_song(words)}\n")


def compose(words: SongText, thought: Metadata) -> Prompt:
    """Return the prompt for the audio codes: the words, and the thinking in the form used in training.

    The turn of the thinking stays open, because the codes belong to it.
    """
    return _thinking(plan_prompt(words), cot_yaml(thought))


def compose_unguided(words: SongText) -> Prompt:
    """Return the unconditional form of `compose`: only the negative prompt or `NO_NEGATIVE`, and no thinking."""
    return _thinking(_asked(COMPOSE, words.negative if words.negated else NO_NEGATIVE), "")


def understand_prompt(codes: tuple[int, ...]) -> Prompt:
    """Return the prompt for the description of audio codes; raise `ValueError` for more codes than a song can have."""
    if len(codes) > _MOST_CODES:
        raise ValueError(
            f"{len(codes):,} audio codes are {len(codes) / CODES_PER_SECOND:,.1f} seconds of music,"
            f" and a song has at most {MAX_DURATION_S:.0f}"
        )
    return _asked(UNDERSTAND, codes or NO_NEGATIVE)


def create(query: str, *, instrumental: bool = False) -> Prompt:
    """Return the prompt for a song in words made from a wish."""
    query = query if query.strip() else NO_NEGATIVE
    return _asked(CREATE, f"{query}\n\ninstrumental: {str(instrumental).lower()}")


def rewrite(words: SongText) -> Prompt:
    """Return the prompt for rewriting a caption and lyrics."""
    caption = words.caption if words.caption.strip() else NO_NEGATIVE
    lyrics = words.lyrics if words.lyrics.strip() else INSTRUMENTAL
    return _asked(FORMAT, _song(SongText(caption=caption, lyrics=lyrics)))


def _song(words: SongText) -> str:
    return f"# Caption\n{words.caption}\n\n# Lyric\n{words.lyrics}"


def _asked(instruction: str, asked: str | tuple[int, ...]) -> Prompt:
    system = (SpecialToken.START, f"system\n# Instruction\n{instruction}\n\n", SpecialToken.END, "\n")
    user = (f"user\n{asked}",) if isinstance(asked, str) else ("user\n", asked)
    return Prompt(
        pieces=(*system, SpecialToken.START, *user, SpecialToken.END, "\n", SpecialToken.START, "assistant\n")
    )


def _thinking(prompt: Prompt, thought: str) -> Prompt:
    return Prompt(pieces=(*prompt.pieces, SpecialToken.THINK, f"\n{thought}\n", SpecialToken.THOUGHT, "\n\n"))


def _fitted(name: str, text: str, longest: int, tokenizer: PlannerTokenizer) -> tuple[str, tuple[str, ...]]:
    text = encodable(text)
    tokens = len(tokenizer.plain(text))
    if tokens <= longest:
        return text, ()
    warning = f"The {name} came to {tokens:,} tokens and the language model reads {longest:,}: the end was left out."
    return _shortened(text, lambda beginning: len(tokenizer.plain(beginning)) - longest, tokenizer), (warning,)


def _shortened(text: str, excess: Callable[[str], int], tokenizer: PlannerTokenizer) -> str:
    """Return the beginning of a text, shortened until `excess` returns 0 for it."""
    # A shortened text can take more tokens than before the cut, so it is checked again.
    while (over := excess(text)) > 0:
        tokens = tokenizer.plain(text)
        # A character cut in the middle is left out.
        text = tokenizer.text(tokens[: max(0, len(tokens) - over)]).rstrip("\N{REPLACEMENT CHARACTER}")
    return text
