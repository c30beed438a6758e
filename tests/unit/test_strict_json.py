"""A file is read within limits, and a sentence says why one is not."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.errors import Exit, InvalidInputError
from acestep.strict_json import MOST_BYTES, read_as, read_json


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


class Leaf(msgspec.Struct):
    size: int


class Branch(msgspec.Struct):
    leaves: dict[str, Leaf]


class Tree(msgspec.Struct):
    branches: dict[str, list[Branch]]


def test_the_entry_with_a_wrong_value_is_named(tmp_path: Path) -> None:
    good: dict[str, Any] = {"leaves": {"a": {"size": 1}, "b": {"size": 2}}}
    wrong: dict[str, Any] = {"leaves": {"a": {"size": 1}, "c": {"size": "x"}, "d": {"size": 3}}}
    path = tmp_path / "tree.json"
    path.write_text(json.dumps({"branches": {"north": [good], "south.west": [good, wrong], "east": [good]}}))
    with pytest.raises(InvalidInputError, match=re.escape("`$.branches.south.west[1].leaves.c.size`")):
        read_as(path, Tree)


def test_in_an_object_with_very_many_entries_none_is_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    path.write_text(json.dumps({"branches": {str(n): n for n in range(10_000)}}))
    with pytest.raises(InvalidInputError, match=re.escape("branches[...]")):
        read_as(path, Tree)
