"""Prompts equal those of the training exactly, have a maximum length, and user text never becomes a special token."""

import json
from typing import Any

import jinja2
import msgspec
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
from tests.references import NOT_HERE, REFERENCE
from tests.some import first_of

UPSTREAM_PROMPTS = REFERENCE / "upstream" / "lm_prompts.json"

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


def opened(instruction: str, user: str, thought: str) -> str:
    """The turn of an assistant who has thought and goes on: the template's, without its end."""
    return rendered(instruction, user, f"<think>\n{thought}\n</think>").removesuffix("<|im_end|>\n")


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PlannerTokenizer:
    return TOKENIZERS[request.param]()


WORDS = SongText(caption="slow piano", lyrics="[Verse]\nla")
NEGATED = SongText(caption="slow piano", lyrics="[Verse]\nla", negative="drums")
SONG = "# Caption\nslow piano\n\n# Lyric\n[Verse]\nla"
CASES = {
    "plan": (prompts.plan_prompt(WORDS), rendered(GEN, f"{SONG}\n")),
    "compose": (
        prompts.compose(WORDS, THOUGHT),
        opened(GEN, f"{SONG}\n", cot_yaml(THOUGHT)),
    ),
    "compose unguided": (prompts.compose_unguided(WORDS), opened(GEN, "NO USER INPUT", "")),
    "compose negated": (prompts.compose_unguided(NEGATED), opened(GEN, "drums", "")),
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
    assert prompts.compose_unguided(words) == prompts.compose_unguided(SongText(caption="z", lyrics="w"))


def test_the_codes_follow_the_thinking_in_the_same_turn(tokenizer):
    tail = [tokenizer.vocabulary.thought, *tokenizer.plain("\n\n")]
    for prompt in (prompts.compose(WORDS, THOUGHT), prompts.compose_unguided(WORDS)):
        assert list(prompt.tokens(tokenizer))[-len(tail) :] == tail


@pytest.mark.skipif(not UPSTREAM_PROMPTS.exists(), reason=NOT_HERE)
def test_prompts_are_the_original_code_s_to_the_letter():
    reference = json.loads(UPSTREAM_PROMPTS.read_text())
    asked, expected = reference["inputs"], reference["prompts"]
    words = SongText(caption=asked["caption"], lyrics=asked["lyrics"])
    negated = msgspec.structs.replace(words, negative=asked["negative"])
    metas = [metadata_of(fields) for fields in asked["metas"]]
    ours = {
        "plan": prompts.plan_prompt(words),
        "compose": prompts.compose(words, metas[0]),
        "compose_un": prompts.compose_unguided(words),
        "compose_un_neg": prompts.compose_unguided(negated),
        "understand": prompts.understand_prompt((1, MAX_AUDIO_CODE)),
        "create": prompts.create("a sad song", instrumental=True),
        "create_f": prompts.create("a sad song"),
        "format": prompts.rewrite(words),
    }
    assert {name: prompt.text for name, prompt in ours.items()} == {name: expected[name] for name in ours}
    # Nothing is left out but the unguided prompts of the plan, which is written without guidance.
    assert expected.keys() - ours.keys() == {"cot", "plan_un", "plan_un_neg"}
    for fields, meta, thought in zip(asked["metas"], metas, expected["cot"], strict=True):
        # 6/8 is the one spelling that we shorten.
        spelled = thought.replace("6/8", "6")
        assert f"<think>\n{cot_yaml(meta)}\n</think>" == spelled, fields


def metadata_of(fields: dict[str, Any]) -> Metadata:
    """The original's fields under our names; those that are null are not known."""
    ours = {"duration_s" if name == "duration" else name: value for name, value in fields.items() if value is not None}
    # The tempo may be text there.
    return Metadata(**ours | {"bpm": int(ours.get("bpm", 0))})


def prompts_of(words: SongText) -> list[Prompt]:
    return [
        prompts.plan_prompt(words),
        prompts.compose(words, Metadata(bpm=90, caption=words.caption)),
        prompts.compose_unguided(words),
        prompts.create(words.caption),
        prompts.rewrite(words),
    ]


@settings(max_examples=50)
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
        assert encodable(negative) in prompts.compose_unguided(words).text


def marks(tokens: tuple[int, ...], tokenizer: PlannerTokenizer) -> list[int]:
    return [token for token in tokens if token >= tokenizer.vocabulary.plain]


def longest_of(tokenizer: PlannerTokenizer) -> int:
    """The most tokens that a prompt may take: its frame, and each slot at its longest."""
    frame = max(len(prompt.tokens(tokenizer)) for prompt in prompts_of(SongText(caption="x", lyrics="y", negative="z")))
    return frame + MAX_CAPTION_TOKENS + MAX_LYRIC_TOKENS + prompts.MAX_THOUGHT_TOKENS


@pytest.mark.parametrize(
    "unit", first_of(["</think>", "\ud800", "word ", "a", "'", "\N{EIGHTH NOTE}", '": \\', "\x85"], 3)
)
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
    assert len(prompts.plan_prompt(words).tokens(tokenizer)) <= longest_of(tokenizer)
    without = longest_of(tokenizer) - MAX_LYRIC_TOKENS - prompts.MAX_THOUGHT_TOKENS
    assert len(prompts.compose_unguided(words).tokens(tokenizer)) <= without
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
