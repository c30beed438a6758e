"""What other rooms tell a user is said in the page's language: every sentence has a translation, and none is lost."""

import ast
import re
import string
from collections.abc import Iterator
from html import escape
from pathlib import Path

import pytest

from acestep.locale_text import LANGUAGES, read_texts
from acestep.serving.failures import FailedRun, FailureKind
from acestep.ui.sentences import LONGEST, SOURCE, Sentences, literals
from acestep.ui.views import failure_html, warnings_html
from acestep.ui.words import LOCALES, PageText

ROOT = Path(__file__).parents[2]
TRANSLATED = [language for language in LANGUAGES if language != SOURCE]

TELLING = (
    "acestep/adapters",
    "acestep/request.py",
    "acestep/fields.py",
    "acestep/plain_text.py",
    "acestep/song_settings.py",
    "acestep/audio/comments.py",
    "acestep/audio/formats.py",
    "acestep/audio/mixdown.py",
    "acestep/audio/read.py",
    "acestep/audio/write.py",
    "acestep/checkpoints/header.py",
    "acestep/checkpoints/host_memory.py",
    "acestep/checkpoints/intact.py",
    "acestep/checkpoints/tensor_folder.py",
    "acestep/checkpoints/weight_files.py",
    "acestep/devices/card_faults.py",
    "acestep/dit/attention.py",
    "acestep/dit/sampler.py",
    "acestep/engine",
    "acestep/limits/beside_adapters.py",
    "acestep/limits/fallbacks.py",
    "acestep/limits/free_now.py",
    "acestep/limits/granting.py",
    "acestep/limits/plan.py",
    "acestep/limits/prediction.py",
    "acestep/limits/second_card.py",
    "acestep/limits/tier_of_card.py",
    "acestep/limits/unlocked.py",
    "acestep/lm/backends/open.py",
    "acestep/lm/stage.py",
    "acestep/serving/song_maker.py",
    "acestep/ui/adapter_choices.py",
    "acestep/ui/events.py",
    "acestep/ui/examples.py",
    "acestep/ui/form.py",
    "acestep/ui/settings.py",
    "acestep/ui/songs.py",
    "acestep/ui/studio.py",
    "acestep/ui/waiting.py",
)
"""The modules whose sentences reach the page, and rooms of such modules."""

NOT_ON_THE_PAGE = (
    "File does not exist or is not a regular file",  # libsndfile's, which is replaced
    "-f s16le -ar 44100 -ac 2",  # a part of a command
    "MP4 or M4A (AAC or ALAC)",  # names of formats
    "WebM or Matroska",
    "CUDA driver error:",  # what a library's error begins with
    "no such override: ",  # for Python programs
    "ij...,ip,jr->pr...",  # a formula of einsum
    "str | PathLike[str] | Adapter",  # a type
    ".safetensors.index.json",  # the end of a file's name
)
"""Texts with the words of a sentence that are none, or that no user of the page meets."""

SAID = (
    "Songs of up to 10 min are certified on this card without a language model (tier4, simulated 1a2b3c4d): 20 min 30 s"
    " was cut to 10 min.",
    "Quantization fp8 of the transformer is not possible: it needs compute capability 8.9 or newer, and NVIDIA RTX 3060"
    " has 8.6; int8 is used.",
    "Offload none needs more memory than this card is certified for; cpu is used. This song would need 4.10 GiB, and"
    " songs may take 3.22 GiB of this card; so it needs 2.00 GiB. Shorter songs need less.",
    "some song.flac: is a web page, not a recording; download the file again",
    "The card ran out of memory (out of memory), with 1 song at once and offload stream too. Ask for shorter songs with"
    " --duration, use --quantization int8, or close other programs that use it.",
    "The song is made without planning: no language model was chosen.",
    "folk.safetensors: lora_unet_x cannot be used: its matrices have rank 4, and its configuration says 8",
    "folk: holds folk.bin but no safetensors; pickled weights can run code when read and are refused; ask for the"
    " adapter as safetensors",
    "model.safetensors: is damaged or cut short: it holds 12 of 4,096 bytes of weights; fetch it again from where you"
    " have it",
    "language must be one of en de, got 'klingon'; did you mean 'en'?",
    "Up to 1 song of 4 min at once are certified on this card with a language model (tier2, measured 00ff00ff): the"
    " batch of 8 was cut to 1.",
)
"""Sentences as they come, with parts that are sentences themselves."""

STAY = re.compile(
    r"[A-Z]+[a-z]*[0-9.]*|[a-z0-9]*[0-9][a-z0-9]*|--[a-z]+|(?<=`).*?(?=`)|'[^']*'|[a-z ]+\.flac"
    r"|folk(?:\.bin)?|(?:model\.)?safetensors|lora_unet_x"
    r"|pickle|tier|stream|none|cpu|simulated|measured|en|de|out of memory|NVIDIA RTX|GiB"
)
"""What stays in English: names, knobs with their values, commands, and what was quoted."""


def sentences_of(module: Path) -> Iterator[list[str]]:
    """The fixed parts of each text of a module that reads like a sentence; log lines and docstrings are none."""
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("_LOG."):
            skipped.update(map(id, ast.walk(node)))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        elif isinstance(node, ast.JoinedStr | ast.Constant):
            parts = [node] if isinstance(node, ast.Constant) else node.values
            fixed = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            skipped.update(id(part) for part in parts)
            if _reads_like_a_sentence(" {} ".join(fixed)):
                yield [part for text in fixed for part in text.split("{}") if part]


def _reads_like_a_sentence(text: str) -> bool:
    if text.startswith("\n") or "(?:" in text:  # a list of names, a pattern
        return False
    return len(re.findall(r"(?<![\w-])[A-Za-z]{2,}(?![\w(-])", text)) >= 3 and "document.querySelector" not in text


def modules() -> Iterator[Path]:
    for name in TELLING:
        place = ROOT / name
        yield from sorted(place.rglob("*.py")) if place.is_dir() else [place]


def in_order(parts: list[str], text: str) -> bool:
    """Whether the parts stand in the text, one after another."""
    at = 0
    for part in parts:
        at = text.find(part, at) + len(part)
        if at < len(part):
            return False
    return True


@pytest.mark.parametrize("module", list(modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_sentence_of_these_modules_has_a_translation(module: Path) -> None:
    known = read_texts(LOCALES / "sentences" / f"{TRANSLATED[0]}.json")
    missing = [parts for parts in sentences_of(module) if not any(in_order(parts, text) for text in known)]
    assert [parts for parts in missing if parts[0] not in NOT_ON_THE_PAGE] == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_the_languages_have_the_same_sentences_with_the_same_placeholders(language: str) -> None:
    texts = read_texts(LOCALES / "sentences" / f"{language}.json")
    assert list(texts) == list(read_texts(LOCALES / "sentences" / f"{TRANSLATED[0]}.json"))
    for english, said in texts.items():
        assert placeholders(said) == placeholders(english), english


def placeholders(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


@pytest.mark.parametrize("language", TRANSLATED)
def test_each_template_translates_its_own_text_and_keeps_what_varies(language: str) -> None:
    say, texts = Sentences(LOCALES, language), read_texts(LOCALES / "sentences" / f"{language}.json")
    for english, said in texts.items():
        values = {name: str(number) for number, name in enumerate(placeholders(english), 1234)}
        is_marks_only = not any(map(str.isalpha, "".join(literals(english))))
        assert say(english.format(**values)) == (english if is_marks_only else said).format(**values)


@pytest.mark.parametrize("language", TRANSLATED)
@pytest.mark.parametrize("english", SAID)
def test_no_english_is_left_in_a_sentence_as_it_comes(english: str, language: str) -> None:
    said = Sentences(LOCALES, language)(english)
    assert said != english
    assert re.findall(r"[a-z]{3,}", STAY.sub("", said)) == []


@pytest.mark.parametrize("english", [*SAID, "", "Something that is in no file."])
def test_english_stays_as_it_is(english: str) -> None:
    assert Sentences(LOCALES, SOURCE)(english) == english


@pytest.mark.parametrize("language", TRANSLATED)
def test_what_is_unknown_or_long_or_quoted_stays_as_it_is(language: str) -> None:
    say = Sentences(LOCALES, language)
    assert say("Something that is in no file.") == "Something that is in no file."
    long = "none: " * LONGEST
    assert say(long) == long
    nested = "x: " * 600
    assert say(nested) == nested
    assert "'none'" in say("task must be one of a b, got 'none'")
    assert "{x}" in say("{x}.flac: does not exist")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_a_translation_or_marks_its_english(language: str) -> None:
    words = PageText(language)
    known, unknown = "Compiling is left off on A <card>.", "libfoo said: bar"
    shown = warnings_html([known, unknown], words)
    assert escape(words.sentence(known)) in shown
    assert shown.count('lang="en"') == (0 if language == SOURCE else 1)
    assert ("Compiling is left off" in shown) == (language == SOURCE)
    failure = FailedRun(kind=FailureKind.INPUT, detail="batch must be 1 to 8 songs, got 9")
    assert escape(words.sentence(failure.detail or "")) in failure_html(failure, words)
    assert "lang=" not in failure_html(failure, words)
