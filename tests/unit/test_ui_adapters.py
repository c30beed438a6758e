"""The choices of adapters on the page: one for each, and a song made again takes those that it was made with."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from acestep.adapters.choice import Adapter
from acestep.errors import UsageError
from acestep.fused_adapter import FusedAdapter
from acestep.knobs import Knobs
from acestep.request import Request
from acestep.result import Result
from acestep.serving.visits import Visit, VisitSong
from acestep.song import DecodePath
from acestep.song_settings import settings_in, settings_text
from acestep.ui.adapter_choices import AdapterChoices
from acestep.ui.examples import example_names
from acestep.ui.form import Form
from acestep.ui.gallery import Gallery
from acestep.ui.songs import FILLED, Songs
from acestep.ui.words import PageText

WORDS = PageText("en")


@pytest.fixture
def given(tmp_path: Path) -> tuple[Adapter, Adapter]:
    for name in ("folk", "rock"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    return Adapter(path=tmp_path / "folk.safetensors", scale=0.5), Adapter(path=tmp_path / "rock.safetensors")


def fused(*adapters: Adapter) -> tuple[FusedAdapter, ...]:
    """What a song's file says of its adapters."""
    return tuple(
        FusedAdapter(name=one.name, scale=one.scale, digest=hashlib.sha256(one.path.read_bytes()).hexdigest())
        for one in adapters
    )


def test_there_is_a_choice_for_every_adapter(tmp_path: Path, given: tuple[Adapter, Adapter]) -> None:
    folk = Adapter(path=tmp_path / "other" / "folk.safetensors", scale=0.5)
    name = "folk.safetensors:0.5"
    assert AdapterChoices(()).names == ("none",)
    assert AdapterChoices(given[:1]).names == (name, "none")
    assert AdapterChoices((given[0], folk)).names == ("all", name, f"{name} (1)", "none")


def test_the_choice_like_a_song_has_its_adapters(given: tuple[Adapter, Adapter]) -> None:
    choices = AdapterChoices(given)
    for choice in choices.names:
        assert choices.like(fused(*choices.chosen(choice))) == choice
    assert choices.like(fused(*reversed(given))) == choices.names[0]


def test_no_choice_is_like_a_song_with_another_scale_or_other_weights(given: tuple[Adapter, Adapter]) -> None:
    folk, rock = given
    choices, song = AdapterChoices(given), fused(rock)
    assert choices.like(fused(msgspec.structs.replace(folk, scale=0.25))) is None
    rock.path.write_bytes(b"trained for longer")
    assert choices.like(song) is None
    rock.path.unlink()
    assert choices.like(song) is None
    assert choices.like(()) == "none"


def clicked(act: str, adapters: tuple[Adapter, ...], song: tuple[FusedAdapter, ...], folder: Path) -> dict[Any, Any]:
    """What a click on the card of a song makes of the page of a program with adapters."""
    request = Request(caption="drums")
    made = Result(
        request=request,
        songs=(),
        stages=(),
        songs_per_pass=1,
        decode_path=DecodePath.CPU,
        warnings=(),
        adapters=song,
    )
    visit = Visit(folder)
    visit.made = [
        VisitSong(
            path=folder / "song.wav",
            served=folder / "served.wav",
            caption="drums",
            seed=7,
            duration_s=1.0,
            settings=settings_in(settings_text(request, made, 7, "tiny", Knobs()), "song.wav"),
        )
    ]
    studio: Any = SimpleNamespace(adapters=AdapterChoices(adapters), model="tiny")
    return Songs(studio, Gallery(), WORDS, {name: name for name in FILLED}).act(visit, f"1 {act}")


@pytest.mark.parametrize("act", ["use song.wav", "another song.wav"])
def test_a_song_made_again_takes_its_adapters_or_says_that_they_are_not_there(
    act: str, tmp_path: Path, given: tuple[Adapter, Adapter]
) -> None:
    for song in (), fused(given[0]), fused(*given):
        page = clicked(act, given, song, tmp_path)
        assert AdapterChoices(given).chosen(page["adapter"]["value"]) == given[: len(song)]
        assert page["warnings"] == ""
    page = clicked(act, given[:1], fused(given[1]), tmp_path)
    assert "adapter" not in page
    assert "rock.safetensors:1" in page["warnings"]


def test_an_example_leaves_the_choice_of_adapters(tmp_path: Path, given: tuple[Adapter, Adapter]) -> None:
    page = clicked(f"example {example_names('en')[0]}", given, (), tmp_path)
    assert "caption" in page
    assert "adapter" not in page


def test_an_unknown_choice_is_refused_and_none_is_the_first(given: tuple[Adapter, Adapter]) -> None:
    choices = AdapterChoices(given)
    assert choices.chosen(Form().adapter) == choices.chosen(choices.names[0]) == given
    with pytest.raises(UsageError, match="adapter must be one of all"):
        choices.chosen("../x")
