"""The body of a request over HTTP: the fields and rules of `acestep.Request`, with the defaults of the command."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.errors import UsageError
from acestep.http_api.body import SongsAsked, pipeline_request, read_body, think_wish, uploads_in, wishes_of
from acestep.knobs import LM_MODELS, Offload
from acestep.request import MAX_SEED, Request, asked_request
from acestep.thinking import Think

UPLOAD = "0" * 32


def read(**fields: Any) -> SongsAsked:
    return read_body(json.dumps({"caption": "drums", **fields}).encode())


def test_every_field_of_a_request_can_be_asked_for_and_nothing_else_but_four() -> None:
    own = {"audio_format", "mp3_bitrate", "knobs", "adapters"}
    assert set(SongsAsked.__struct_fields__) == set(Request.__struct_fields__) | own


def test_a_bare_caption_means_what_the_bare_command_means() -> None:
    asked = read()
    request = pipeline_request(asked, {})
    usual = msgspec.structs.asdict(Request(caption="drums", think=True))
    assert {name: value for name, value in msgspec.structs.asdict(request).items() if name != "seed"} == {
        name: value for name, value in usual.items() if name != "seed"
    }
    assert len({pipeline_request(asked, {}).seed for _ in range(3)}) > 1
    assert (think_wish(asked), asked.audio_format, wishes_of(asked)) == (Think.AS_PLANNED, "flac", {})


def test_whether_a_language_model_plans_is_asked_for_or_left_to_the_tier() -> None:
    wishes = [(read(think=value), value) for value in (True, False, None)]
    assert [think_wish(asked) for asked, _ in wishes] == [Think.YES, Think.NO, Think.AS_PLANNED]
    assert [pipeline_request(asked, {}).think for asked, _ in wishes] == [True, False, True]


values: dict[str, st.SearchStrategy[Any]] = {
    "lyrics": st.text(max_size=20),
    "duration_s": st.one_of(st.floats(-2, 4_000), st.integers(-2, 700)),
    "batch": st.integers(-1, 70),
    "seed": st.integers(-2, MAX_SEED + 1),
    "steps": st.integers(-1, 210),
    "guidance_scale": st.floats(-1, 31),
    "bpm": st.integers(-2, 310),
    "keyscale": st.sampled_from(["", "Am", "c MAJOR", "H"]),
    "timesignature": st.sampled_from(["", "4/4", 4, 5]),
    "language": st.sampled_from(["", "en", "klingon"]),
    "task": st.sampled_from(["text2music", "cover", "sing"]),
    "audio_codes": st.lists(st.integers(-1, 64_000), max_size=3),
    "guidance_interval": st.tuples(st.floats(-0.5, 1), st.floats(0, 1.5)),
    "dcw": st.sampled_from([None, True, False]),
}


@settings(max_examples=60)
@given(st.fixed_dictionaries({}, optional=values))
def test_a_body_is_taken_or_refused_as_the_request_itself_is(fields: dict[str, Any]) -> None:
    try:
        direct, refusal = asked_request({"caption": "drums", "think": True, "seed": -1, **fields}), None
    except UsageError as error:
        direct, refusal = None, str(error)
    try:
        request, said = pipeline_request(read(**fields), {}), None
    except UsageError as error:
        request, said = None, str(error)
    assert (request is None, said is None) == (direct is None, refusal is None)
    if said is not None and not said.startswith("the request cannot be used:"):
        assert said == refusal
    if request is not None and direct is not None and fields.get("seed", -1) != -1:
        assert request == direct


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "cannot be used"),
        (b"drums", "cannot be used"),
        (b"[]", "Expected `object`"),
        (b"{}", "caption"),
        (b'{"caption": 3}', r"\$.caption"),
        (b'{"caption": "x", "out": "/etc"}', "out"),
        (b'{"caption": "x", "source_audio": {"path": "/etc/passwd"}}', "source_audio"),
        (b'{"caption": "x", "duration_s": NaN}', "cannot be used"),
        (b'{"caption": "x", "batch": 1e400}', "cannot be used"),
        (b'{"caption": "\\ud800"}', "cannot be used"),
        (b'{"caption": "\xff"}', "cannot be used"),
        (b'{"caption": ' + b"[" * 100_000, "cannot be used"),
        (b'{"caption": "x", "audio_format": "../../x"}', "flac, wav"),
        (b'{"caption": "x", "audio_format": "flac", "mp3_bitrate": 128}', "for mp3"),
        (b'{"caption": "x", "audio_format": "mp3", "mp3_bitrate": 129}', "129"),
        (b'{"caption": "x", "knobs": {"variant": "base"}}', "variant"),
        (b'{"caption": "x", "knobs": {"lm": "9B"}}', "0.6B"),
        (b'{"caption": "x", "thinking": {"sampling": {"temperature": 9}}}', "temperature"),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_wrong(body: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_body(body)


def test_what_a_recording_cannot_change_is_refused_before_it_is_read() -> None:
    asked = read(task="repaint", source_audio=UPLOAD, repaint_start_s=2, repaint_end_s=3)
    assert uploads_in(asked) == {"source_audio": UPLOAD}
    with pytest.raises(UsageError, match="bpm"):
        read(task="repaint", source_audio=UPLOAD, bpm=5)
    with pytest.raises(UsageError, match="needs source_audio"):
        read(task="repaint")


def test_knobs_are_asked_for_by_the_values_of_the_command() -> None:
    knobs = {"lm": LM_MODELS[0], "offload": "cpu+dit", "quantization": None, "compile": False}
    assert wishes_of(read(knobs=knobs)) == knobs | {"offload": Offload.CPU_DIT}
