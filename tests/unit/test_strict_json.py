"""A file is read within limits, and a sentence says why one is not."""

import os
import time
from pathlib import Path

import pytest

from acestep.errors import Exit, InvalidInputError
from acestep.strict_json import MOST_BYTES, read_json


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_text("[1]".ljust(MOST_BYTES), encoding="utf-8")
    assert read_json(path) == [1]
    path.write_text("[1]".ljust(MOST_BYTES + 1), encoding="utf-8")
    with pytest.raises(InvalidInputError, match="larger than 4 MiB") as caught:
        read_json(path)
    assert (caught.value.source, caught.value.exit) == (path, Exit.INVALID)


def test_pipes_devices_and_folders_are_refused_without_waiting_for_them(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(InvalidInputError, match="not a file; save it as a file"):
            read_json(path)


def test_a_deep_document_with_long_names_costs_no_more_than_its_size(tmp_path: Path) -> None:
    depth, name = 400, "n" * 4_000
    path = tmp_path / "deep.json"
    path.write_text(f'{{"{name}":' * depth + "[" + "1," * 500_000 + "1]" + "}" * depth, encoding="utf-8")
    before = time.process_time()
    read_json(path)
    assert time.process_time() - before < 20


def test_half_a_character_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "half.json"
    path.write_text(r'{"tiers": [{}, {"label": "a\ud800"}]}', encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"\$\.tiers\[1\]\.label has half a character"):
        read_json(path)
