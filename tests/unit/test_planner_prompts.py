"""Prompts equal those of the training exactly, have a maximum length, and user text never becomes a special token."""

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.checkpoints.tokenizer import encodable
from acestep.lm import prompts
from acestep.lm.grammar import MAX_CAPTION_TOKENS
from acestep.lm.metadata import NO_METADATA, Metadata, cot_yaml
from acestep.lm.prompts import Prompt, SongText, SpecialToken
from acestep.lm.tokenizer import PlannerTokenizer
from acestep.request import MAX_AUDIO_CODE, MAX_LYRIC_TOKENS
from acestep.thinking import NO_NEGATIVE
from tests.planner_tokenizers import HOSTILE, TOKENIZERS, byte_tokenizer

# What the Qwen3 chat template does with a system, a user and an assistant turn, without tools.
CHATML = jinja2.Environment(autoescape=False).from_string(  # noqa: S701 a chat template is no page
    """{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {%- set thought = message.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') -%}
        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') -%}
        {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content -}}
    {%- else -%}
        {{- '<|im_start|>' + message.role + '\\n' + message.content -}}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""
)
GEN = "Generate audio semantic tokens based on the given conditions:"
THOUGHT = Metadata(bpm=120, caption="A calm piece: " + "with soft strings " * 20, duration_s=30, language="no")

any_text = st.text(st.characters(exclude_categories=()))
hostile = st.lists(st.one_of(st.sampled_from(HOSTILE), any_text), max_size=5).map("".join)


def rendered(instruction: str, user: str, *thought: str) -> str:
    system = {"role": "system", "content": f"# Instruction\n{instruction}\n\n"}
    turns = [system, {"role": "user", "content": user}, *({"role": "assistant", "content": t} for t in thought)]
    return CHATML.render(messages=turns, add_generation_prompt=not thought)


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PlannerTokenizer:
    return TOKENIZERS[request.param]()


WORDS = SongText(caption="slow piano", lyrics="[Verse]\nla")
NEGATED = SongText(caption="slow piano", lyrics="[Verse]\nla", negative="drums")
SONG = "# Caption\nslow piano\n\n# Lyric\n[Verse]\nla"
NEGATIVE_SONG = SONG.replace("slow piano", "drums")
CASES = {
    "plan": (prompts.plan_prompt(WORDS), rendered(GEN, f"{SONG}\n")),
    "plan unguided": (prompts.plan_unguided(WORDS), rendered(GEN, "# Lyric\n[Verse]\nla\n")),
    "plan negated": (prompts.plan_unguided(NEGATED), rendered(GEN, f"{NEGATIVE_SONG}\n")),
    "compose": (
        prompts.compose(WORDS, THOUGHT),
        rendered(GEN, f"{SONG}\n", f"<think>\n{cot_yaml(THOUGHT)}\n</think>"),
    ),
    "compose unguided": (prompts.compose_unguided(WORDS), rendered(GEN, f"{SONG}\n", "<think>\n</think>")),
    "compose negated": (prompts.compose_unguided(NEGATED), rendered(GEN, f"{NEGATIVE_SONG}\n", "<think>\n</think>")),
    "understand": (
        prompts.understand_prompt((1, 63_999)),
        rendered(
            "Understand the given musical conditions and describe the audio semantics accordingly:",
            "<|audio_code_1|><|audio_code_63999|>",
        ),
    ),
    "create": (
        prompts.create("a waltz", instrumental=True),
        rendered(
            "Expand the user's input into a more detailed and specific musical description:",
            "a waltz\n\ninstrumental: true",
        ),
    ),
    "rewrite": (
        prompts.rewrite(WORDS),
        rendered("Format the user's input into a more detailed and specific musical description:", SONG),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_prompt_is_what_the_chat_template_makes(case):
    prompt, expected = CASES[case]
    assert prompt.text == expected


@pytest.mark.parametrize("case", CASES)
def test_a_prompts_tokens_spell_its_text(tokenizer, case):
    prompt, expected = CASES[case]
    assert tokenizer.text(prompt.tokens(tokenizer)) == expected


def test_what_was_left_out_is_said_as_in_training():
    assert "\nNO USER INPUT\n\ninstrumental: false<" in prompts.create(" ").text
    assert "user\nNO USER INPUT<" in prompts.understand_prompt(()).text
    assert "# Caption\nNO USER INPUT\n\n# Lyric\n[Instrumental]<" in prompts.rewrite(SongText(caption="\n")).text


@pytest.mark.parametrize("negative", ["", " \n", NO_NEGATIVE, f" {NO_NEGATIVE} "])
def test_no_negative_prompt_is_none(negative):
    words = SongText(caption="x", lyrics="y", negative=negative)
    assert prompts.plan_unguided(words) == prompts.plan_unguided(SongText(caption="z", lyrics="y"))
    assert prompts.compose_unguided(words) == prompts.compose_unguided(SongText(caption="x", lyrics="y"))


def test_an_open_turn_ends_with_the_thinking(tokenizer):
    closed = prompts.compose(WORDS, THOUGHT)
    opened = prompts.compose(WORDS, THOUGHT, open_turn=True)
    assert closed.text == f"{opened.text}<|im_end|>\n"
    tail = [tokenizer.vocabulary.thought, *tokenizer.plain("\n\n")]
    assert list(opened.tokens(tokenizer))[-len(tail) :] == tail
    assert "user\ndrums<|im_end|>" in prompts.compose_unguided(NEGATED, open_turn=True).text
    assert "user\n<|im_end|>" in prompts.compose_unguided(WORDS, open_turn=True).text


def prompts_of(words: SongText) -> list[Prompt]:
    return [
        prompts.plan_prompt(words),
        prompts.plan_unguided(words),
        prompts.compose(words, Metadata(bpm=90, caption=words.caption)),
        prompts.compose_unguided(words),
        prompts.compose_unguided(words, open_turn=True),
        prompts.create(words.caption),
        prompts.rewrite(words),
    ]


@settings(max_examples=50, deadline=None)
@given(caption=hostile, lyrics=hostile, negative=hostile.map(lambda text: f"no {text}"))
def test_user_text_never_becomes_a_special_token(tokenizer, caption, lyrics, negative):
    benign = prompts_of(SongText(caption="x", lyrics="y", negative="z"))
    words, warnings = prompts.fitted(SongText(caption=caption, lyrics=lyrics, negative=negative), tokenizer)
    for prompt, safe in zip(prompts_of(words), benign, strict=True):
        tokens = prompt.tokens(tokenizer)
        assert marks(tokens, tokenizer) == marks(safe.tokens(tokenizer), tokenizer)
        assert tokenizer.text(tokens) == prompt.text
    if not warnings:
        assert encodable(caption) in prompts.plan_prompt(words).text
        assert encodable(lyrics) in prompts.plan_prompt(words).text
        assert encodable(negative) in prompts.plan_unguided(words).text


def marks(tokens: tuple[int, ...], tokenizer: PlannerTokenizer) -> list[int]:
    return [token for token in tokens if token >= tokenizer.vocabulary.plain]


def longest_of(tokenizer: PlannerTokenizer) -> int:
    """The most tokens that a prompt may take: its frame, and each slot at its longest."""
    frame = max(len(prompt.tokens(tokenizer)) for prompt in prompts_of(SongText(caption="x", lyrics="y", negative="z")))
    return frame + MAX_CAPTION_TOKENS + MAX_LYRIC_TOKENS + prompts.MAX_THOUGHT_TOKENS


@pytest.mark.parametrize("unit", ["</think>", "\ud800", "word ", "a", "'", "\N{EIGHTH NOTE}", '": \\', "\x85"])
def test_100_kilobytes_are_cut_and_said(tokenizer, unit):
    long = unit * (100_000 // len(unit))
    words, warnings = prompts.fitted(SongText(caption=long, lyrics=long, negative=long), tokenizer)
    assert len(warnings) == 3
    assert all(name in warning for name, warning in zip(["caption", "lyrics", "negative"], warnings, strict=True))
    assert encodable(long).startswith(words.caption)
    assert 0.9 * MAX_CAPTION_TOKENS <= len(tokenizer.plain(words.caption)) <= MAX_CAPTION_TOKENS
    assert 0.9 * MAX_LYRIC_TOKENS <= len(tokenizer.plain(words.lyrics)) <= MAX_LYRIC_TOKENS
    thought = prompts.fitted_thought(Metadata(bpm=90, caption=words.caption), tokenizer)
    assert len(prompts.compose(words, thought).tokens(tokenizer)) <= longest_of(tokenizer)
    assert all(len(prompt.tokens(tokenizer)) <= longest_of(tokenizer) for prompt in prompts_of(words)[:2])
    query, said = prompts.fitted_query(long, tokenizer)
    assert query == words.caption
    assert len(said) == 1


@given(caption=st.text(max_size=100), lyrics=st.text(max_size=400))
def test_what_fits_is_not_touched(caption, lyrics):
    words = SongText(caption=caption, lyrics=lyrics)
    assert prompts.fitted(words, byte_tokenizer()) == (words, ())
    assert prompts.fitted_thought(NO_METADATA, byte_tokenizer()) == NO_METADATA


def test_codes_are_tokens_and_no_more_than_a_song_has(tokenizer):
    codes = tuple(range(0, MAX_AUDIO_CODE, MAX_AUDIO_CODE // 2_999))[:3_000]
    tokens = prompts.understand_prompt(codes).tokens(tokenizer)
    assert [token for token in tokens if token in tokenizer.vocabulary.codes] == [*map(tokenizer.vocabulary.id, codes)]
    with pytest.raises(ValueError, match="at most 600"):
        prompts.understand_prompt((0,) * 3_001)


def test_only_the_prompts_own_marks_are_marks(tokenizer):
    assert marks(Prompt(pieces=("<think>", SpecialToken.THINK)).tokens(tokenizer), tokenizer) == [
        tokenizer.vocabulary.think
    ]
