"""Follows CONTRIBUTING.md literally: its five commands lead from a clone to a change that the gate accepts.

The card is simulated here, with one tier, and its songs last a minute.
"""

import re

import msgspec

from calibrate.table.waivers import Waiver
from tests.command_lines import ROOT, commands, problems

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\S+)(.*?)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
CARD = next(text for language, name, text in BLOCKS if (language, name.strip()) == ("bash", "card"))


def test_a_card_takes_five_commands() -> None:
    assert len(CARD.splitlines()) == 5


def test_every_command_of_the_page_names_what_there_is() -> None:
    shell = "\n".join(text for language, _, text in BLOCKS if language == "bash").replace("<this repository>", "URL")
    said = [*commands(shell), *(words for line in re.findall(r"`([^`\n]+)`", PAGE) for words in commands(line))]
    assert [problem for words in said if words != ["--base", "REF"] for problem in problems(words)] == []


def test_the_waiver_of_the_page_is_one() -> None:
    (example,) = [text for language, _, text in BLOCKS if language == "json"]
    assert msgspec.json.decode(example, type=tuple[Waiver, ...])
