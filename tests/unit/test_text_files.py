"""Texts that an option reads from a file: every encoding that names itself, and a sentence for others."""

import codecs
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from acestep.cli.task_options import text_of
from acestep.errors import InvalidInputError

MARKS = {
    "utf-8": (b"", codecs.BOM_UTF8),
    "utf-16-le": (codecs.BOM_UTF16_LE,),
    "utf-16-be": (codecs.BOM_UTF16_BE,),
    "utf-32-le": (codecs.BOM_UTF32_LE,),
    "utf-32-be": (codecs.BOM_UTF32_BE,),
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\x1b\ufeff"), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS, encoding=st.sampled_from(sorted(MARKS)), ends=st.sampled_from(["\n", "\r\n", "\r"]))
@example(text="\x1b$", encoding="utf-16-be", ends="\n")
def test_a_text_is_read_as_it_was_written_with_lines_that_end_alike(
    tmp_path: Path, text: str, encoding: str, ends: str
) -> None:
    file = tmp_path / "words.txt"
    for mark in MARKS[encoding]:
        file.write_bytes(mark + text.replace("\n", ends).encode(encoding))
        assert text_of(f"@{file}") == text


@pytest.mark.parametrize(
    "content",
    [
        "Grüße".encode("latin-1"),
        "la la".encode("utf-16-le"),
        b"la\0la",
        codecs.BOM_UTF16_LE + b"a",
        b"\xff\xd8\xff\xe0",
        *(
            "歌詞\n二行目".encode(name)
            for name in ("shift-jis", "euc-jp", "iso2022-jp", "gb18030", "utf-16-le", "utf-16-be")
        ),
        codecs.BOM_UTF16_LE + b"\0\xd8",
        *(
            rb"{\rtf1\ansi la la}",
            b"%PDF-1.7\nla",
            b"\n<!DOCTYPE html>la",
            b"PK\3\4la",
            b"\xd0\xcf\x11\xe0la",
            b"\x1f\x8bla",
        ),
    ],
)
def test_what_is_no_text_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes(content)
    with pytest.raises(InvalidInputError, match="save it as UTF-8"):
        text_of(f"@{file}")


@pytest.mark.parametrize(
    "begin",
    [
        *(r"{\rtf1\ansi la", "<!DOCTYPE html><p>la", "\n <!doctype HTML>la", "<html>la", "<HTML lang=ja>la"),
        *('<?xml version="1.0"?>\n<html>la', "<!-- saved -->\n<html>la", "%PDF-1.7\nla"),
    ],
)
@pytest.mark.parametrize(("encoding", "mark"), [(name, mark) for name, marks in MARKS.items() for mark in marks])
def test_a_document_is_told_in_every_encoding(tmp_path: Path, begin: str, encoding: str, mark: bytes) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes(mark + begin.encode(encoding))
    with pytest.raises(InvalidInputError, match="is a document with fonts and layout"):
        text_of(f"@{file}")


def test_a_tag_of_lyrics_is_no_document(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    for text in ("<htmlish love>\nla", "< html >", "{soft} la", "<|audio_code_1|>"):
        file.write_text(text)
        assert text_of(f"@{file}") == text


def test_a_file_that_cannot_be_read_is_refused_without_waiting_and_without_filling_memory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name, said in (
        (tmp_path / "pipe", "a pipe or a device"),
        (tmp_path / "endless", "a pipe or a device"),
        (Path("/dev/zero"), "larger than"),
        (tmp_path, "is a folder"),
        (tmp_path / "missing", "does not exist"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            text_of(f"@{name}")


def test_what_a_shell_passes_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"la la")
    os.close(writer)
    try:
        assert text_of(f"@/dev/fd/{reader}") == "la la"
    finally:
        os.close(reader)
