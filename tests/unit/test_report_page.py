"""A record as a page: everything in it is shown, nothing in it is obeyed, and it needs nothing from elsewhere."""

from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.cli.console import run_click
from acestep.errors import Exit
from acestep.units import MIB, mib
from calibrate.cli import cli as calibrate
from calibrate.files import pretty_json
from calibrate.probes.base import CardConditions
from calibrate.record.measurement import Measurement, content_digest
from calibrate.report.page import record_page
from calibrate.table.knobs import describe_knobs
from tests.guides import on_a_card, simulated

VOID = {"meta", "link", "br", "img", "input", "hr"}

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title><style>*{display:none}</style>",
    "{{ record.digest }} {% for x in y %}",
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
    "&lt;b&gt; &amp;",
)


class Reader(HTMLParser):
    """Collects tags, attributes and text, and complains about tags that do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.values: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.values += [value or "" for _, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


CLEAN = read(record_page(simulated()))


def spoiled(text: str) -> Measurement:
    """A record with a text wherever one may stand, as no reader of files would let through."""
    record = simulated()
    changed = msgspec.structs.replace(
        record,
        card=msgspec.structs.replace(record.card, name=text, compute_capability=text),
        environment=msgspec.structs.replace(record.environment, torch=text, python=text),
        code_version=text,
        digest=text,
    )
    stages = tuple(msgspec.structs.replace(stage, name=text) for stage in record.probes[-1].stages)
    last = msgspec.structs.replace(record.probes[-1], stages=stages)
    return msgspec.structs.replace(changed, probes=(*record.probes[:-1], last))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_shown_as_text_and_adds_no_tag_and_no_attribute(text: str) -> None:
    found = read(record_page(spoiled(text)))
    assert found.tags == CLEAN.tags
    assert found.attributes == CLEAN.attributes
    assert text in "".join(found.text)


@settings(max_examples=15)
@given(st.text(min_size=1, max_size=40).filter(lambda text: "\r" not in text and "\0" not in text))
def test_no_text_leaves_its_place(text: str) -> None:
    found = read(record_page(spoiled(text)))
    assert found.tags == CLEAN.tags
    assert found.attributes == CLEAN.attributes


def test_a_page_asks_nothing_of_the_network_and_runs_nothing() -> None:
    page = record_page(simulated())
    assert CLEAN.tags & {"script", "link", "img", "iframe", "object", "form", "base"} == set()
    assert CLEAN.attributes & {"href", "src", "action", "onclick", "onload"} == set()
    for elsewhere in ("http://", "https://", "url(", "@import"):
        assert elsewhere not in page
    assert "default-src 'none'" in page


def test_a_page_can_be_read_in_the_light_and_in_the_dark() -> None:
    assert "prefers-color-scheme: dark" in record_page(simulated())


@pytest.mark.parametrize("record", [simulated(), on_a_card()], ids=["simulated", "measured"])
def test_everything_that_was_found_is_on_the_page(record: Measurement) -> None:
    text = "\n".join(read(record_page(record)).text)
    assert record.digest in text
    assert record.card.name in text
    assert record.code_version in text
    assert text.count("oom") >= sum(probe.verdict == "oom" for probe in record.probes)
    for certificate in record.certificates:
        assert describe_knobs(certificate.knobs) in text
        for index in (certificate.fits, certificate.fails):
            assert index is None or f"(probe {index})" in text
    for number in record.memory_model:
        assert number.name in text
    for stage in {stage.name for probe in record.probes for stage in probe.stages}:
        assert stage in text


@pytest.mark.parametrize("watched", [True, False])
def test_a_page_says_what_else_was_on_a_real_card(watched: bool) -> None:
    conditions = CardConditions(
        watched=watched,
        foreign_bytes=300 * MIB,
        context_bytes=500 * MIB,
        allocator="expandable_segments:True",
        returned_s=1.5,
    )
    text = " ".join(read(record_page(msgspec.structs.replace(on_a_card(), conditions=conditions))).text)
    for told in (mib(300 * MIB), mib(500 * MIB), "expandable_segments:True", "1.5 s"):
        assert told in text
    assert ("not watched" in text) is not watched
    assert "On the card" not in record_page(simulated())


def test_bars_are_shares_of_the_cap() -> None:
    widths = [float(value[6:-1]) for value in CLEAN.values if value.startswith("width:")]
    assert widths
    assert all(0 <= width <= 100 for width in widths)


def test_the_same_record_is_the_same_page() -> None:
    assert record_page(simulated()) == record_page(simulated())


def test_the_command_makes_the_page_of_a_file(tmp_path: Path) -> None:
    record, page = tmp_path / "record.json", tmp_path / "page.html"
    record.write_text(pretty_json(simulated()), encoding="utf-8")
    assert run_click(calibrate, ["report", "--html", str(record), "-o", str(page)]) == Exit.OK
    assert page.read_text(encoding="utf-8") == record_page(simulated())


def test_a_page_never_replaces_its_record(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text(pretty_json(simulated()), encoding="utf-8")
    (tmp_path / "link.html").symlink_to(record)
    for page in (record, tmp_path / "link.html", tmp_path / "folder" / ".." / "record.json"):
        assert run_click(calibrate, ["report", "--html", str(record), "-o", str(page)]) == Exit.USAGE
    assert record.read_text(encoding="utf-8") == pretty_json(simulated())


def test_a_page_never_replaces_a_table_or_a_record_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, tiers = tmp_path / "record.json", tmp_path / "tiers"
    record.write_text(pretty_json(simulated()), encoding="utf-8")
    (tiers / "measurements").mkdir(parents=True)
    (tiers / "policy.json").write_text("{}", encoding="utf-8")
    (tmp_path / "twin.json").hardlink_to(record)
    (tmp_path / "link.html").symlink_to(tiers / "policy.json")
    monkeypatch.setattr("calibrate.report.cli._CHECKOUT", tmp_path)
    for page in ("twin.json", "link.html", "tiers/policy.json", "tiers/measurements/new.json"):
        assert run_click(calibrate, ["report", "--html", str(record), "-o", str(tmp_path / page)]) == Exit.USAGE
        assert page in capsys.readouterr().err
    assert (tiers / "policy.json").read_text(encoding="utf-8") == "{}"
    assert not (tiers / "measurements" / "new.json").exists()


def test_a_record_that_was_edited_is_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, page = tmp_path / "record.json", tmp_path / "page.html"
    edited = msgspec.structs.replace(simulated(), code_version="another")
    assert content_digest(edited) != edited.digest
    record.write_text(pretty_json(edited), encoding="utf-8")
    assert run_click(calibrate, ["report", "--html", str(record), "-o", str(page)]) == Exit.INVALID
    assert "digest" in capsys.readouterr().err
    assert not page.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--pr"],
        ["--html", "record.json"],
        ["--pr", "--html", "record.json", "-o", "page.html"],
        ["--pr", "--base", "HEAD", "-o", "page.html"],
        ["--html", "record.json", "-o", "page.html", "--base", "HEAD"],
        ["--base", "HEAD"],
    ],
)
def test_invalid_report_options_are_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_click(calibrate, ["report", *arguments]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
