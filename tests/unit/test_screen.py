"""Tables are whole: no cell is cut, on a terminal of any width or in a pipe."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calibrate import screen

cells = st.text("abc xyz", min_size=1, max_size=12).map(lambda text: text.strip() or "-")
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=2, max_size=4)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(table=tables)
def test_in_a_pipe_each_row_is_one_line_with_every_cell(
    table: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    screen.print_table("A title", table[0], table[1:])
    title, *lines = capsys.readouterr().out.removesuffix("\n\n").split("\n")
    assert title == "A title"
    assert len(lines) == len(table)
    for row, line in zip(table, lines, strict=True):
        assert all(cell in line for cell in row)
        assert line == line.rstrip()


@pytest.mark.parametrize("width", [8, 30, 60, 200])
def test_on_a_terminal_nothing_is_cut_and_only_folding_columns_fold(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(screen.sys, "stdout", _Terminal(screen.sys.stdout))
    screen.print_table("T", ("size", "why"), [("16 GiB", "it is the smallest card")], folding=("why",))
    out = capsys.readouterr().out
    assert "16 GiB" in out
    assert all(word in out for word in ("it", "is", "the", "smallest", "card"))


class _Terminal:
    """A stream that says it is a terminal."""

    def __init__(self, stream: object) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return True

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def test_progress_in_a_pipe_is_a_line_per_probe(capsys: pytest.CaptureFixture[str]) -> None:
    with screen.probe_progress(2) as advance:
        advance("first")
        advance("second")
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["[1/2] first", "[2/2] second"]
    assert captured.out == ""
