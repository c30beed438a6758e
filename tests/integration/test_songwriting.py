"""The language model by itself, from the command line and from Python: words and codes, or a sentence and a code."""

import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

import acestep
from acestep import api
from acestep.checkpoints.lm import build_lm
from acestep.cli import console
from acestep.cli.main import cli
from acestep.devices.cpu import CpuDevice
from acestep.engine.pipeline import UNABLE_TO_THINK
from acestep.engine.settle_thinking import settle_thinking
from acestep.errors import Exit, InvalidInputError, RunFailedError, UsageError
from acestep.hardware.card import simulated_card
from acestep.knobs import Attention, Knobs
from acestep.limits import machine
from acestep.limits.plan import clamp, exact
from acestep.lm import language, songwriting
from acestep.lm.metadata import Metadata
from acestep.lm.songwriting import open_lm
from acestep.lm.stage import Thinker
from acestep.request import Request, Task
from acestep.thinking import Thinking
from tests.planner_tokenizers import HOSTILE
from tests.some import first_of

BRIEF = Thinking(caption=False)
PLAN = exact(simulated_card(8), Knobs(lm="0.6B"))


@pytest.fixture(autouse=True)
def in_few_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tiny model writes as much as it may, which takes a while; and no checkpoint of this machine is found."""
    monkeypatch.setattr("acestep.lm.grammar.MAX_CAPTION_TOKENS", 12)
    monkeypatch.setattr("acestep.lm.grammar.MAX_LYRIC_TOKENS", 12)
    monkeypatch.setenv("ACESTEP_CHECKPOINTS_DIR", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("MAX_CUDA_VRAM", raising=False)
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = console.run_click(cli, arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = run(capsys, *arguments, "--model", "tiny", "--json")
    assert code == Exit.OK, err
    read: dict[str, Any] = json.loads(out)
    return read


@pytest.mark.parametrize(
    "arguments",
    [
        ("understand",),
        ("understand", "--audio-codes", "<|audio_code_7|><|audio_code_63999|>"),
        ("sample", "a sad song", "--language", "ko", "--instrumental"),
        ("sample", "long " * 20_000),
        ("format", "--caption", "x", "--lyrics", "la\udcff", "--bpm", "90", "--duration", "600"),
    ],
)
def test_a_command_about_words_prints_one_document_and_a_seed_says_the_same_again(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    said = document(capsys, *arguments, "--seed", "3")
    assert said == document(capsys, *arguments, "--seed", "3")
    assert said["caption"]
    assert 10 <= said["duration_s"] <= 600
    assert any("means nothing" in sentence for sentence in said["warnings"])
    for flag, value in itertools.pairwise(arguments):
        if flag in ("--language", "--bpm"):
            assert str(said[flag.removeprefix("--")]) == value


@pytest.mark.parametrize("words", first_of(HOSTILE, 5))
def test_hostile_words_end_in_one_document_too(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert document(capsys, "format", "--caption", words, "--lyrics", words.lstrip("@"))["caption"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("sample", ""), Exit.USAGE, "say what the song is to be like"),
        (("sample", " \n"), Exit.USAGE, "say what the song is to be like"),
        (("understand", "--seed", "-2"), Exit.USAGE, "--seed"),
        (("understand", "--seed", str(2**70)), Exit.USAGE, "--seed"),
        (("understand", "--model", "tinny"), Exit.USAGE, "tinny"),
        (("understand", "--lm", "none"), Exit.USAGE, "chosen"),
        (("understand", "--audio-codes", "@empty.txt"), Exit.USAGE, "no codes"),
        (("understand", "--audio-codes", "<|audio_code_1|>" * 3_001), Exit.USAGE, "600.2 seconds"),
        (("understand", "--model", "turbo"), Exit.INVALID, "acestep download"),
        (("sample", "x", "--language", "klingon"), Exit.USAGE, "language"),
        (("format", "--caption", "x", "--bpm", "7"), Exit.USAGE, "bpm"),
        (("format", "--caption", "x", "--duration", "700"), Exit.USAGE, "duration"),
        (("format", "--caption", "x", "--lyrics", "@missing.txt"), Exit.INVALID, "missing.txt"),
    ],
)
def test_invalid_input_gives_a_sentence_and_an_exit_code(
    arguments: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.txt").touch()
    model = () if "--model" in arguments else ("--model", "tiny")
    ended, out, err = run(capsys, *arguments, *model)
    assert (ended, out) == (code, "")
    assert words in err


def generated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    brief = ("--caption", "drums", "--steps", "1", "--seed", "5", "--think", "--no-cot-caption")
    return document(capsys, "generate", *brief, *arguments)


def test_a_song_that_is_too_long_is_cut_with_thinking_as_it_is_without(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = msgspec.structs.replace(PLAN.frontier, with_lm=dict.fromkeys(PLAN.frontier.with_lm, 2))
    short = msgspec.structs.replace(PLAN, frontier=nothing)
    monkeypatch.setattr(api, "plan_to_run", lambda *_: short)
    made = generated(capsys, "--duration", "700")
    assert made["metadata"]["duration_s"] == made["songs"][0]["duration_s"] == 2
    assert any("700" in sentence or "11 min 40 s" in sentence for sentence in made["warnings"])
    # Shorter than a plan may be, so there is no length to choose.
    assert generated(capsys)["metadata"]["duration_s"] == 2


def test_where_no_length_is_certified_none_is_chosen_but_the_usual_one(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = msgspec.structs.replace(PLAN.frontier, with_lm=dict.fromkeys(PLAN.frontier.with_lm, 0))
    clamped, (sentence,) = clamp(
        Request(caption="x", batch=4, think=True), msgspec.structs.replace(PLAN, frontier=nothing), lm=True
    )
    assert (clamped.batch, clamped.duration_s) == (1, 60)
    assert "No song length" in sentence


@pytest.mark.parametrize("unknown", first_of(["unknown", "", "Unknown"], 1))
def test_the_planned_language_reaches_the_song(unknown: str, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = generated(capsys, "--duration", "1", "--language", unknown)["metadata"]
    assert metadata["language"].lower() not in ("", "unknown")


def test_words_that_are_no_text_still_end_in_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    made = generated(capsys, "--duration", "1", "--caption", "dr\udcffms", "--lm-negative-prompt", "\ud800")
    assert made["metadata"]["caption"] == "dr?ms"


def test_without_a_language_model_an_asked_plan_is_left_out_for_the_reason_there_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = generated(capsys, "--duration", "1", "--lm", "none")
    assert "think" not in {stage["name"] for stage in made["stages"]}
    assert any("no language model was chosen" in sentence for sentence in made["warnings"])


def _thinker(model: str) -> Thinker:
    return open_lm(PLAN, model, CpuDevice(), lambda _: None).thinker()


@pytest.mark.parametrize("asked", [True, False])
def test_only_a_plan_that_was_asked_for_can_fail(asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    request = Request(caption="x", think=True)

    def thinking() -> tuple[Request, Thinker]:
        return settle_thinking(request, PLAN, lambda: _thinker("turbo"), said.append, unasked=not asked)

    if asked:
        with pytest.raises((UsageError, InvalidInputError), match="acestep download"):
            thinking()
    else:
        without, thinker = thinking()
        assert (without.think, without.duration_s) == (False, 60)
        assert thinker is UNABLE_TO_THINK
        assert "acestep download" in said[0]


@pytest.mark.parametrize("asked", [True, False])
def test_skipped_planning_is_reported_only_if_thinking_was_requested(asked: bool) -> None:
    said: list[str] = []
    cover = Request(caption="x", task=Task.COVER, audio_codes=(1,) * 10, think=True)
    without, thinker = settle_thinking(cover, PLAN, lambda: _thinker("tiny"), said.append, unasked=not asked)
    assert (without.think, thinker) == (False, UNABLE_TO_THINK)
    assert bool(said) == asked


def test_python_plans_songs_that_are_the_same_alone_and_in_a_batch() -> None:
    request = Request(caption="drums", duration_s=2.5, batch=2, seed=8, thinking=BRIEF)
    pair = acestep.plan_song(request, PLAN, model="tiny")
    alone = acestep.plan_song(msgspec.structs.replace(request, batch=1, seed=9), PLAN, model="tiny")
    # A song this short is computed in 128 latent frames, and so are its codes.
    assert [len(codes) for codes in pair.codes] == [26, 26]
    assert pair.codes[1] == alone.codes[0]
    assert pair.request.keyscale
    assert acestep.understand(pair.codes[0], PLAN, model="tiny").metadata.known
    in_words = msgspec.structs.replace(request, thinking=Thinking(caption=False, codes=False))
    assert acestep.plan_song(in_words, PLAN, model="tiny").codes == ()


def test_python_keeps_what_is_known_of_a_song_it_formats() -> None:
    known = Metadata(bpm=90, keyscale="A minor", language="de", duration_s=30)
    found = acestep.format_sample("a waltz", "la", PLAN, metadata=known, model="tiny")
    assert msgspec.structs.replace(found.metadata, caption="", timesignature="") == known
    sung = acestep.create_sample("a waltz", PLAN, language="de", model="tiny")
    assert sung.metadata.language == "de"


def test_words_are_written_as_the_packages_that_are_installed_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "installed", lambda _: False)
    monkeypatch.setattr(songwriting, "open_here", lambda: (CpuDevice(), simulated_card(8)))
    wished = msgspec.structs.replace(PLAN, attention=Attention.FLASH)
    said = acestep.understand((), wished, model="tiny").warnings
    assert any("flash-attn is not installed" in sentence for sentence in said)


def test_a_song_that_exists_is_not_planned_by_itself_either() -> None:
    with pytest.raises(UsageError, match="cover"):
        acestep.plan_song(Request(caption="x", task=Task.COVER, audio_codes=(1,) * 10), PLAN, model="tiny")


def test_too_little_memory_is_a_run_that_failed_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr("acestep.lm.backends.pt.PtBackend.write", full)
    with pytest.raises(RunFailedError, match="--lm"):
        acestep.create_sample("x", PLAN, model="tiny")
    code, out, err = run(capsys, "sample", "x", "--model", "tiny")
    assert (code, out) == (Exit.RUN_FAILED, "")
    assert "no room" in err


def test_weights_with_fewer_tokens_than_their_tokenizer_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    small = build_lm("tiny", dtype=torch.float32, vocab_size=300)
    monkeypatch.setattr(language, "build_lm", lambda *_, **__: small)
    with pytest.raises(InvalidInputError, match="300 tokens"):
        open_lm(PLAN, "tiny", CpuDevice(), pytest.fail)


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_the_language_model_in_or_beside_a_models_folder_is_the_one_that_is_used(where: str, tmp_path: Path) -> None:
    model = tmp_path / "downloaded" / "acestep-v15-turbo"
    lm = (model if where == "inside" else model.parent) / "acestep-5Hz-lm-0.6B"
    lm.mkdir(parents=True)
    (lm / "config.json").write_text("{}")
    # Found, and then refused for what it is: a folder without a tokenizer.
    with pytest.raises(InvalidInputError, match="holds no tokenizer") as refused:
        open_lm(PLAN, str(model), CpuDevice(), pytest.fail)
    assert refused.value.source == lm
