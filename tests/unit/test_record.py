"""A measurement file says what was probed; manual or foreign changes are refused by name."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.errors import Exit, InvalidInputError
from calibrate.files import pretty_json
from calibrate.record.measurement import SAFE_TEXT, Measurement, content_digest, load_measurement
from calibrate.record.schema import measurement_schema
from tests.fakes import measured

RECORD = measured(sizes=(4, 8))
SCHEMA = Path(__file__).parents[2] / "tiers" / "schema" / "measurement-1.json"
CONTRACT = ["schema_version", "card", "environment", "cap_method", "code_version", "probes", "certificates", "digest"]


def raw() -> dict[str, Any]:
    return json.loads(msgspec.json.encode(RECORD))  # type: ignore[no-any-return]


def stored(document: Any, folder: Path) -> Path:
    path = folder / "record.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert load_measurement(stored(pretty_json(RECORD), tmp_path)) == RECORD


def test_the_same_campaign_gives_the_same_bytes() -> None:
    assert pretty_json(measured(sizes=(4, 8))) == pretty_json(RECORD)


def test_the_top_level_keys_are_the_contract_and_none_is_null() -> None:
    assert list(raw()) == CONTRACT
    assert None not in raw().values()


def test_a_simulated_probe_is_given_no_time_of_its_own() -> None:
    assert {stage.seconds for probe in RECORD.probes for stage in probe.stages} == {0.0}


def test_the_digest_covers_everything_else() -> None:
    changed = msgspec.structs.replace(RECORD, code_version="another")
    assert content_digest(changed) != RECORD.digest == content_digest(RECORD)


def test_the_stored_schema_is_in_step_with_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == measurement_schema(), "run `python tools/write_schemas.py`"


def test_the_schema_restricts_every_string() -> None:
    def strings(node: Any) -> list[dict[str, Any]]:
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        own = [node] if isinstance(node, dict) and node.get("type") == "string" else []
        return own + [found for child in children for found in strings(child)]

    found = strings(measurement_schema())
    assert found
    assert all({"pattern", "enum"} & set(schema) for schema in found)


@given(st.from_regex(SAFE_TEXT, fullmatch=True))
def test_safe_text_has_no_markup_no_control_character_and_an_end(text: str) -> None:
    assert len(text) <= 80
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set("<>&|`'\"\\*[]#$;")


def _truncate(text: str) -> str:
    return text[: len(text) // 2]


def _edit(change: Callable[[dict[str, Any]], None]) -> Callable[[str], str]:
    def spoil(text: str) -> str:
        document = json.loads(text)
        change(document)
        document.pop("digest")
        sealed = document | {"digest": "sha256:" + "0" * 64}
        with contextlib.suppress(msgspec.ValidationError):
            sealed["digest"] = content_digest(msgspec.convert(sealed, Measurement))
        return json.dumps(sealed)

    return spoil


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    *keys, last, value = path

    def change(document: dict[str, Any]) -> None:
        node: Any = document
        for key in keys:
            node = node[key]
        node[last] = value

    return change


def _fit(document: dict[str, Any]) -> int:
    return next(n for n, c in enumerate(document["certificates"]) if c["fits"] is not None)


def _claim_failure_as_fit(document: dict[str, Any]) -> None:
    certificate = next(c for c in document["certificates"] if c["fails"] is not None)
    certificate["fits"], certificate["fails"] = certificate["fails"], None


def _point_elsewhere(document: dict[str, Any]) -> None:
    number = _fit(document)
    document["certificates"][number]["batch"] = 64


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_truncate, "cut short"),
        (_edit(_set("card", "total_bytes", "many")), "card.total_bytes"),
        (_edit(_set("card", "colour", "green")), "colour"),
        (_edit(_set("card", "name", "<script>")), "$.card.name"),
        (_edit(_set("environment", "torch", "x" * 81)), "$.environment.torch"),
        (_edit(_set("environment", "torch", "2.13\n")), "$.environment.torch"),
        (_edit(_set("probes", 0, "knobs", "lm", "`rm -rf`")), "$.probes[0].knobs.lm"),
        (_edit(_set("probes", 0, "verdict", "fine")), "probes[0].verdict"),
        (_edit(_set("probes", 0, "cap_bytes", 0)), "probes[0].cap_bytes"),
        (_edit(_set("cap_method", None)), "cap_method"),
        (_edit(_set("schema_version", 2)), "schema_version is 2"),
        (_edit(_set("certificates", 0, "fails", 10_000)), "certificates[0].fails"),
        (_edit(_claim_failure_as_fit), "certificates["),
        (_edit(_point_elsewhere), "asked something else"),
        (lambda text: text.replace('"oom"', '"fits"'), "certificates["),
        (lambda text: text.replace("8.6", "8.9"), "digest"),
    ],
)
def test_a_spoiled_record_is_refused_with_file_and_field(
    spoil: Callable[[str], str], named: str, tmp_path: Path
) -> None:
    path = stored(spoil(pretty_json(RECORD)), tmp_path)
    with pytest.raises(InvalidInputError) as caught:
        load_measurement(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert caught.value.exit is Exit.INVALID
