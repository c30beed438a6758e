"""A recording's audio codes: those that a cover of it follows, written as generate reads them."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import torch

import acestep
from acestep.checkpoints.components import Components
from acestep.cli import console
from acestep.cli.main import cli
from acestep.clip import FRAMES_A_SECOND, SAMPLE_RATE, Clip
from acestep.devices.cpu import CpuDevice
from acestep.dit.audio_tokens import AudioTokenizer
from acestep.dit.prompts import codes_in
from acestep.dit.vae_encode import TILE_FRAMES
from acestep.engine import encode_audio as stage
from acestep.engine.pipeline import RETRIES, Pipeline
from acestep.engine.service import Service
from acestep.errors import Exit, NotEnoughMemoryError
from acestep.knobs import Knobs, Offload
from acestep.request import CODE_FRAMES, LATENT_HOP, MAX_DURATION_S, Request, Task
from acestep.units import Progress, ceil_div
from tests.small_card import ALWAYS, SmallCard, tiny_components
from tests.some import first_of

PLAN = acestep.resolve_plan()


def _clip(seconds: float, seed: int = 3) -> Clip:
    noise = np.random.default_rng(seed).standard_normal((2, round(seconds * SAMPLE_RATE)))
    return Clip(audio=(0.1 * noise).astype(np.float32))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "song.wav", _clip(2.0).audio.T, SAMPLE_RATE, subtype="FLOAT")
    return tmp_path / "song.wav"


@pytest.fixture(scope="module")
def service() -> Service:
    return Service("tiny")


@pytest.mark.parametrize("seconds", [1.0, 1.1, 5.3])
def test_the_codes_are_those_that_a_cover_follows(
    service: Service, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    clip, followed = _clip(seconds), list[torch.Tensor]()
    tokens = AudioTokenizer.tokens

    def kept(tokenizer: AudioTokenizer, latents: torch.Tensor, silence: torch.Tensor) -> torch.Tensor:
        made = tokens(tokenizer, latents, silence)
        codes = torch.tensor([found])
        assert torch.equal(tokenizer.tokens_of(codes), made)
        followed.append(made)
        return made

    found = service.codes(clip, PLAN)
    monkeypatch.setattr(stage.AudioTokenizer, "tokens", kept)
    service.generate(Request(caption="x", task=Task.COVER, source_audio=clip, steps=1), PLAN)
    assert len(followed) == 1
    assert len(found) == ceil_div(clip.samples // LATENT_HOP, CODE_FRAMES)


def test_a_cover_of_codes_is_the_cover_of_the_recording(service: Service) -> None:
    clip = _clip(2.0)
    found = service.codes(clip, PLAN)
    covers = (
        Request(caption="x", task=Task.COVER, source_audio=clip, steps=1, seed=5),
        Request(caption="x", task=Task.COVER, audio_codes=found, steps=1, seed=5),
    )
    of_clip, of_codes = (service.generate(request, PLAN)[0].songs[0].audio for request in covers)
    assert np.array_equal(of_clip, of_codes)


def test_codes_are_written_as_generate_reads_them(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "codes.txt"
    assert console.run_click(cli, ["codes", str(recording), "--model", "tiny"]) == Exit.OK
    printed = capsys.readouterr().out
    assert console.run_click(cli, ["codes", str(recording), "--model", "tiny", "--out", str(written)]) == Exit.OK
    assert written.read_text() == printed
    capsys.readouterr()
    assert console.run_click(cli, ["codes", str(recording), "--model", "tiny", "--json"]) == Exit.OK
    document = json.loads(capsys.readouterr().out)
    assert tuple(document["codes"]) == codes_in(printed)
    assert document["count"] == len(document["codes"]) == document["codes_per_second"] * document["duration_s"]
    assert document["duration_s"] == 2.0
    asked = ["--audio-codes", f"@{written}", "--caption", "x", "--steps", "1", "--out", str(tmp_path), "--json"]
    assert console.run_click(cli, ["generate", "--model", "tiny", *asked]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["songs"][0]["duration_s"] == 2.0


def test_understanding_a_recording_is_understanding_its_codes(
    recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("MAX_CAPTION_TOKENS", "MAX_LYRIC_TOKENS"):
        monkeypatch.setattr(f"acestep.lm.grammar.{limit}", 12)
    console.run_click(cli, ["codes", str(recording), "--model", "tiny"])
    codes = capsys.readouterr().out.strip()
    said = []
    for source in (["--src-audio", str(recording)], ["--audio-codes", codes]):
        assert console.run_click(cli, ["understand", "--model", "tiny", "--seed", "3", "--json", *source]) == Exit.OK
        said.append(json.loads(capsys.readouterr().out) | {"warnings": []})
    assert said[0] == said[1]


@pytest.mark.parametrize("command", [["codes"], ["understand", "--src-audio"]])
def test_a_recording_shorter_than_any_song_is_refused_before_a_model_is_loaded(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "half.wav", np.zeros((SAMPLE_RATE // 2, 2)), SAMPLE_RATE)
    assert console.run_click(cli, [*command, str(tmp_path / "half.wav"), "--model", "tiny"]) == Exit.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert "must last 1 to 3600 seconds, got 0.5" in told.err
    assert "random weights" not in told.err


def test_unreadable_audio_has_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "short.wav", np.zeros((100, 2)), SAMPLE_RATE)
    assert console.run_click(cli, ["codes", str(tmp_path / "short.wav"), "--model", "tiny"]) == Exit.INVALID
    assert console.run_click(cli, ["codes", str(tmp_path / "none.wav"), "--model", "tiny"]) == Exit.INVALID
    both = ["--src-audio", "a.wav", "--audio-codes", "<|audio_code_1|>"]
    assert console.run_click(cli, ["understand", "--model", "tiny", *both]) == Exit.USAGE


def test_memory_that_runs_out_ends_with_a_sentence(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("acestep.engine.pipeline.codes_of_clip", full)
    with pytest.raises(NotEnoughMemoryError, match="shorter recording"):
        service.codes(_clip(1.0), PLAN)


def test_a_run_that_gave_up_memory_leaves_the_next_its_own_plan(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = service.codes(_clip(1.0), PLAN)
    heard = Pipeline.codes

    def frugal(pipeline: Pipeline, clip: Clip, progress: Progress) -> tuple[tuple[int, ...], tuple[str, ...]]:
        knobs = msgspec.structs.replace(pipeline.knobs, offload=Offload.STREAM)
        pipeline._place = msgspec.structs.replace(pipeline._place, knobs=knobs)
        return heard(pipeline, clip, progress)

    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "codes", frugal)
        assert service.codes(_clip(1.0), PLAN) == expected
    used: list[Knobs] = []
    monkeypatch.setattr(Pipeline, "codes", lambda pipeline, *_: (used.append(pipeline.knobs), ((), ()))[1])
    service.codes(_clip(1.0), PLAN)
    assert [knobs.offload for knobs in used] == [PLAN.offload]


def test_what_to_know_about_the_recording_is_told_before_the_work(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("acestep.engine.pipeline.codes_of_clip", full)
    told: list[str] = []
    with pytest.raises(NotEnoughMemoryError):
        service.codes(msgspec.structs.replace(_clip(1.0), remarks=("a remark",)), PLAN, notify=told.append)
    assert "a remark" in told


LONG_CLIP = _clip(2.2 * TILE_FRAMES / FRAMES_A_SECOND)
"""Three tiles, the last of them short."""


@pytest.fixture(scope="module")
def components() -> Components:
    return tiny_components()


@pytest.fixture(scope="module")
def undisturbed(components: Components) -> tuple[int, ...]:
    """The codes that come out where memory is no question."""
    return Pipeline(components, Knobs(), CpuDevice()).codes(LONG_CLIP)[0]


@pytest.mark.parametrize("offload", Offload)
@pytest.mark.parametrize("refusals", first_of([1, 0, 2], 1))
def test_the_codes_are_the_same_however_little_memory_there_is(
    components: Components, undisturbed: tuple[int, ...], offload: Offload, refusals: int
) -> None:
    rungs = len(Offload) - 1 - list(Offload).index(offload)
    pipeline = Pipeline(components, Knobs(offload=offload), SmallCard(audio_refusals=min(refusals, rungs)))
    found, warnings = pipeline.codes(LONG_CLIP)
    reached = pipeline.knobs.offload
    pipeline.close()
    assert found == undisturbed
    assert len(warnings) == min(refusals, rungs), "one sentence for each step"
    assert list(Offload).index(reached) == list(Offload).index(offload) + len(warnings)


def test_a_card_that_never_has_room_for_the_recording_ends_in_a_sentence_about_recordings(
    components: Components,
) -> None:
    card = SmallCard(audio_refusals=ALWAYS)
    pipeline = Pipeline(components, Knobs(), card)
    with pytest.raises(NotEnoughMemoryError, match="shorter recording") as failure:
        pipeline.codes(LONG_CLIP)
    pipeline.close()
    assert ALWAYS - card.audio_refusals == 1 + RETRIES
    assert "song" not in str(failure.value)
    assert f"offload {list(Offload)[RETRIES]}" in str(failure.value)


@pytest.mark.parametrize(
    ("place", "refusal"),
    [
        ("acestep.engine.pipeline.codes_of_clip", torch.OutOfMemoryError("no memory")),
        ("acestep.engine.pipeline.codes_of_clip", RuntimeError("DefaultCPUAllocator: can't allocate memory")),
        ("acestep.engine.pipeline.codes_of_clip", MemoryError()),
        ("acestep.engine.kept_model.prepare", torch.OutOfMemoryError("no memory")),
        ("acestep.engine.kept_model.prepare", MemoryError()),
        ("acestep.cli.words.recording_from_options", MemoryError()),
    ],
)
def test_memory_that_runs_out_anywhere_has_its_exit_code_and_a_sentence(
    recording: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    refusal: Exception,
) -> None:
    def full(*_: object) -> None:
        raise refusal

    monkeypatch.setattr(place, full)
    written = tmp_path / "codes.txt"
    written.write_text("before")
    asked = ["codes", str(recording), "--model", "tiny", "--json", "--out", str(written)]
    assert console.run_click(cli, asked) == Exit.RUN_FAILED
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["exit_code"] == Exit.RUN_FAILED
    assert "ran out" in err
    assert "shorter" in err
    assert "Traceback" not in err
    assert written.read_text() == "before"


@pytest.mark.parametrize("command", ["codes", "understand"])
def test_a_recording_that_is_too_long_is_refused_before_a_model_is_loaded(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acestep.engine.kept_model.load", None)
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(round((MAX_DURATION_S + 1) * 4_000), dtype=np.int16), 4_000)
    file = [str(long)] if command == "codes" else ["--src-audio", str(long)]
    assert console.run_click(cli, [command, *file, "--model", "tiny"]) == Exit.INVALID
    assert "601 seconds long; at most 600 can be used, so cut it" in capsys.readouterr().err
