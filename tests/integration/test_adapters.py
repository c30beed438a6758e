"""Songs with adapters are those of weights that were changed by hand; without them, the songs are what they were."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import acestep
from acestep.adapters.choice import Adapter
from acestep.audio.comments import comment_in
from acestep.checkpoints.build import build
from acestep.checkpoints.components import Components
from acestep.cli import console
from acestep.cli.main import cli
from acestep.devices.cpu import CpuDevice
from acestep.engine import kept_model
from acestep.engine import service as service_module
from acestep.engine.pipeline import Pipeline, prepare
from acestep.engine.service import Service
from acestep.errors import Exit, UsageError
from acestep.hardware.card import simulated_card
from acestep.knobs import Knobs, Offload, Quantization, Variant
from acestep.limits.plan import Overrides, Plan, exact
from acestep.request import Request
from acestep.result import Result
from acestep.song_settings import settings_in
from acestep.ui.studio import Studio
from tests.adapters import Made, add_by_hand, lokr, lora
from tests.small_card import SmallCard
from tests.some import first_of

SONG = Request(caption="rain", duration_s=1, seed=3, steps=1)
CARD = simulated_card(8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Made]:
    """A LoRA and a LoKr of two layers."""
    draw, folder = np.random.default_rng(6), tmp_path_factory.mktemp("adapters")
    return (
        lora(folder / "folk", "layers.0.cross_attn.to_v", (32, 64), draw, told="config", power=1),
        lokr(folder / "rock", "layers.1.mlp.up_proj", (128, 64), draw, form="w1 w2_a"),
    )


@pytest.fixture
def chosen(made: tuple[Made, Made]) -> tuple[Adapter, Adapter]:
    return Adapter(path=made[0].path, scale=0.5), Adapter(path=made[1].path)


def changed_by_hand(made: tuple[Made, ...], scales: tuple[float, ...]) -> Components:
    components = build("tiny", dtype=torch.float32)
    for one, scale in zip(made, scales, strict=True):
        add_by_hand(components.transformer, one, scale)
    return components


def sound(components: Components, knobs: Knobs, device: CpuDevice) -> np.ndarray:
    prepare(components, knobs)
    return Pipeline(components, knobs, device).generate(SONG, strict=True).songs[0].audio


KNOBS = (
    Knobs(offload=Offload.NONE),
    Knobs(offload=Offload.STREAM, quantization=Quantization.INT8),
    Knobs(offload=Offload.STREAM_ENCODERS),
    Knobs(offload=Offload.CPU_DIT, quantization=Quantization.INT8),
)


@pytest.mark.parametrize("knobs", first_of(KNOBS, 2), ids=lambda knobs: f"{knobs.offload} {knobs.quantization}")
def test_songs_are_those_of_weights_changed_by_hand_and_the_next_ones_those_of_none(
    knobs: Knobs, made: tuple[Made, Made], chosen: tuple[Adapter, Adapter]
) -> None:
    service = Service("tiny", here=(SmallCard(), CARD))
    held = []

    def result(adapters: Sequence[Adapter] = ()) -> Result:
        done, _ = service.generate(SONG, exact(CARD, knobs), adapters=adapters)
        held.append([pipeline.held_bytes for pipeline in service._pipelines.values()])
        return done

    try:
        without, changed = result(), result(chosen)
        zero, again = result([Adapter(path=made[0].path, scale=0.0)]), result()
    finally:
        service.close()
    by_hand = sound(changed_by_hand(made, (0.5, 1.0)), knobs, SmallCard())
    assert np.array_equal(changed.songs[0].audio, by_hand)
    assert not np.array_equal(changed.songs[0].audio, without.songs[0].audio)
    assert np.array_equal(zero.songs[0].audio, without.songs[0].audio)
    assert np.array_equal(again.songs[0].audio, without.songs[0].audio)
    assert [one.scale for one in changed.adapters] == [0.5, 1.0]
    assert (without.adapters, again.adapters) == ((), ())
    assert held == 4 * held[:1], "adapters take memory on the card"


def test_other_adapters_load_the_model_again_and_none_restores_every_bit(
    chosen: tuple[Adapter, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Any] = []
    load = kept_model.load
    monkeypatch.setattr(kept_model, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    service = Service("tiny", here=(SmallCard(), CARD))
    try:
        for adapters in (chosen, list(chosen), (), ()):
            service.preload(exact(CARD, Knobs()), think=False, notify=lambda _: None, adapters=adapters)
        _, components, _ = service._kept_model._kept or pytest.fail("no model is loaded")
        fresh = build("tiny", dtype=torch.float32).transformer.state_dict()
        for key, tensor in components.transformer.state_dict().items():
            assert torch.equal(tensor.view(torch.uint8), fresh[key].view(torch.uint8))
    finally:
        service.close()
    assert len(loads) == 2


UNFUSED = (
    Knobs(offload=Offload.STREAM, quantization=Quantization.INT8),
    Knobs(offload=Offload.CPU_DIT),
    Knobs(offload=Offload.NONE, quantization=Quantization.FP8),
    Knobs(offload=Offload.STREAM_ENCODERS),
)


@pytest.mark.parametrize("knobs", first_of(UNFUSED, 2), ids=lambda knobs: f"{knobs.offload} {knobs.quantization}")
def test_unfused_adapters_are_switched_and_scaled_between_songs_without_loading(
    knobs: Knobs, made: tuple[Made, Made], chosen: tuple[Adapter, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At scale 0 the songs are those of no adapter, bit for bit; else nearly those of fused ones."""
    loads: list[Any] = []
    load = kept_model.load
    monkeypatch.setattr(kept_model, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    service = Service("tiny", here=(SmallCard(), CARD))
    held = []

    def result(folk: float, rock: float) -> Result:
        scales = zip(chosen, (folk, rock), strict=True)
        adapters = [Adapter(path=one.path, scale=scale, fused=False) for one, scale in scales]
        done, _ = service.generate(SONG, exact(CARD, knobs), adapters=adapters)
        held.append(service.held_bytes)
        return done

    try:
        both, off, other, again = (result(*scales) for scales in ((8, 4), (0, 0), (2, 0), (8, 4)))
        without, _ = service.generate(SONG, exact(CARD, knobs))
        held.append(service.held_bytes)
    finally:
        service.close()
    fused = sound(changed_by_hand(made, (8.0, 4.0)), knobs, SmallCard())
    plainly = without.songs[0].audio
    # Weights are quantized without what adapters change, or with it.
    near = 0.2 if knobs.quantization else 1e-4
    assert np.abs(both.songs[0].audio - fused).max() < near * np.abs(plainly - fused).max()
    assert np.array_equal(off.songs[0].audio, plainly)
    assert np.array_equal(again.songs[0].audio, both.songs[0].audio)
    assert not np.array_equal(other.songs[0].audio, both.songs[0].audio)
    assert [[(one.scale, one.fused) for one in done.adapters] for done in (both, off, other)] == [
        [(8.0, False), (4.0, False)],
        [],
        [(2.0, False)],
    ]
    assert len(loads) == 1
    # Where the transformer stays on the card, so do its adapters.
    assert len(set(held[:4])) == 1
    assert (held[0] > held[4]) is (knobs.offload is Offload.NONE)


def test_songs_of_the_page_have_the_adapters_of_its_command(
    made: tuple[Made, Made], chosen: tuple[Adapter, Adapter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "open_here", lambda: (SmallCard(), CARD))
    monkeypatch.setenv("MAX_CUDA_VRAM", "8")
    studio = Studio("tiny", Overrides(compile=False), tmp_path / "out", chosen)
    _, folk, _, none = studio.adapters.names
    visit = studio.sessions.of("ann")

    def names(choice: str) -> list[str]:
        with visit.run():
            document = studio.generate(SONG, studio.start()[0], "wav", visit, lambda path: path, adapter=choice)
        return [one["name"] for one in document["adapters"]]

    try:
        assert names("") == ["folk", "lokr_weights.safetensors"]
        assert (names(folk), names(none)) == (["folk"], [])
        with pytest.raises(UsageError, match=r"adapter must be one of all, folk:0\.5"):
            names(str(made[0].path))
    finally:
        studio.close()


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run `acestep generate` for a short song of the tiny model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MAX_CUDA_VRAM", raising=False)
    wish = ("--caption", "rain", "--duration", "1", "--steps", "1", "--seed", "3", "--no-think", "--model", "tiny")

    def run(*arguments: str, like: Path | None = None) -> tuple[int, str, str]:
        capsys.readouterr()
        code = console.run_click(cli, ["generate", *(("--like", str(like)) if like else wish), *arguments, "--json"])
        return code, *capsys.readouterr()

    return run


def test_a_file_names_its_adapters_and_its_song_is_made_again_only_with_them(
    say: Say, made: tuple[Made, Made], tmp_path: Path
) -> None:
    folk, rock = f"{made[0].path}:0.5", str(made[1].path)
    code, out, err = say("--lora", folk, "--lora", rock)
    assert code == 0, err
    document = json.loads(out)
    song = Path(document["songs"][0]["path"])
    digest = hashlib.sha256((made[0].path / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert document["adapters"][0] == {"name": "folk", "scale": 0.5, "digest": digest}
    comment = comment_in(song)
    assert [(one.name, one.scale) for one in settings_in(comment, "song").adapters] == [
        ("folk", 0.5),
        ("lokr_weights.safetensors", 1.0),
    ]
    assert str(tmp_path) not in comment
    assert str(made[0].path.parent) not in comment

    # A folder of that name here is not opened without being asked for.
    (tmp_path / "folk").mkdir()
    code, out, err = say(like=song)
    assert code == Exit.USAGE
    assert "--lora 'folk':0.5" in json.loads(out)["error"]["message"]

    code, out, err = say("--lora", folk, "--lora", rock, like=song)
    assert code == 0, err
    assert Path(json.loads(out)["songs"][0]["path"]).read_bytes() == song.read_bytes()
    assert "it may sound different" not in err

    code, out, err = say("--lora", "none", like=song)
    assert code == 0, err
    assert json.loads(out)["adapters"] == []

    code, out, err = say("--lora", rock, like=song)
    assert code == 0, err
    assert "'folk'" in err

    code, out, err = say("--lora", f"{made[0].path}:2", "--lora", rock, like=song)
    assert code == 0, err
    assert "'folk' at scale 0.5, and 2 is given" in err
    assert "lokr_weights" not in err


def test_a_song_with_unfused_adapters_is_made_again_with_unfused_ones(
    say: Say, made: tuple[Made, Made], tmp_path: Path
) -> None:
    folk = f"{made[0].path}:0.5"
    code, out, err = say("--lora", folk, "--lora-unfused")
    assert code == 0, err
    song = Path(json.loads(out)["songs"][0]["path"])
    assert [one.fused for one in settings_in(comment_in(song), "song").adapters] == [False]
    code, out, err = say("--lora", folk, like=song)
    assert code == 0, err
    assert Path(json.loads(out)["songs"][0]["path"]).read_bytes() == song.read_bytes()


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [("none.safetensors", 3, "neither a file nor a folder"), ("folk:99", 2, "-10 to 10"), (" ", 2, "empty")],
)
def test_what_cannot_be_used_is_said_before_a_model_is_loaded(
    given: str, code: int, words: str, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_model, "load", lambda *_, **__: pytest.fail("nothing may be loaded"))
    ended, out, _ = say("--lora", given)
    assert ended == code
    assert words in json.loads(out)["error"]["message"]


def test_an_adapter_of_another_size_ends_the_command_with_3(say: Say, tmp_path: Path) -> None:
    xl = build("tiny", Variant.XL_TURBO, dtype=torch.float32, materialise="meta").transformer
    layer = "layers.0.self_attn.to_q"
    shape = tuple(xl.get_submodule(layer).weight.shape)
    wide = lora(tmp_path / "wide", layer, shape, np.random.default_rng(1), told="config")
    code, out, _ = say("--lora", str(wide.path))
    assert code == Exit.INVALID
    assert str(list(shape)) in json.loads(out)["error"]["message"]


def test_a_python_program_names_adapters_as_the_command_does(
    made: tuple[Made, Made], chosen: tuple[Adapter, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(self: Service, request: Request, plan: Plan, *, adapters: tuple[Adapter, ...]) -> tuple[Any, Plan]:
        return adapters, plan

    monkeypatch.setattr(Service, "generate", generate)
    named = [f"{made[0].path}:0.5", made[1].path]
    for lora_ in (named, chosen, iter(named)):
        assert acestep.generate(SONG, exact(CARD, Knobs()), lora=lora_) == chosen
    assert acestep.generate(SONG, exact(CARD, Knobs())) == ()
