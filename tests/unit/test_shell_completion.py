"""What a shell offers after a part of a command line: commands, their options, and without a command the page's."""

import pytest
from click.shell_completion import ShellComplete

from acestep.cli.main import cli


def offered(line: str) -> set[str]:
    """What completes the last word of a line; an empty one after a space."""
    *words, incomplete = line.split(" ")[1:]
    completion = ShellComplete(cli, {}, "acestep", "_ACESTEP_COMPLETE")
    return {item.value for item in completion.get_completions(words, incomplete)}


@pytest.mark.parametrize("line", ["acestep ", "acestep -v ", "acestep -v --verbose "])
def test_every_command_is_offered(line: str) -> None:
    assert offered(line) == set(cli.commands)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("acestep ge", {"generate"}),
        ("acestep -v pl", {"plan"}),
        ("acestep generate --rep", {"--repaint-start", "--repaint-end", "--repaint-strength", "--repaint-fade"}),
        ("acestep ui --po", {"--port"}),
        ("acestep --po", {"--port"}),
        ("acestep --ver", {"--version", "--verbose"}),
        ("acestep --port 0 --lang", {"--language"}),
        ("acestep --language ", {"en", "ja", "ko", "zh"}),
        ("acestep -v ui --share --language z", {"zh"}),
        ("acestep --help ", set(cli.commands)),
        ("acestep generate --format f", {"flac"}),
    ],
)
def test_a_word_is_completed(line: str, expected: set[str]) -> None:
    assert offered(line) == expected
