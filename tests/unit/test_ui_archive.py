"""All songs of a visitor in one file: one file for each visitor, and none that is left behind."""

import os
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from acestep.limits.plan import Overrides
from acestep.serving.bounds import DAY_S, HOUR_S
from acestep.serving.visits import Visit, VisitSong
from acestep.ui.archive import forget_packed, pack_songs
from acestep.ui.studio import Studio


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def visit_with(folder: Path, *names: str, visit: Visit | None = None) -> Visit:
    """A visit with songs of these names, or an earlier one with more of them."""
    visit = visit or Visit(folder)
    visit.folder.mkdir(exist_ok=True)
    for name in names:
        path = visit.folder / name
        path.write_bytes(name.encode())
        visit.made.append(VisitSong(path=path, served=path, caption="drums", seed=1, duration_s=1.0))
    return visit


def files_in(cache: Path) -> set[Path]:
    return {path for path in cache.rglob("*") if path.is_file()}


def test_a_visitor_has_one_file_in_every_tab_with_the_songs_that_are_there(tmp_path: Path, cache: Path) -> None:
    visit = visit_with(tmp_path, "a.wav", "b.wav")
    again = Visit(tmp_path)
    again.folder = visit.folder
    first = pack_songs(visit)
    visit.made[0].path.unlink()
    second = pack_songs(visit_with(tmp_path, "b.wav", "c.wav", visit=again))
    other = pack_songs(visit_with(tmp_path, "a.wav"))
    assert first == second != other
    assert first is not None
    assert visit.folder.name not in str(first)
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == ["b.wav", "c.wav"]
        assert archive.read("c.wav") == b"c.wav"
    assert files_in(cache) == {first, other}
    assert pack_songs(Visit(tmp_path)) is None


def test_an_interrupted_packing_leaves_the_earlier_file(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit = visit_with(tmp_path, "a.wav")
    packed = pack_songs(visit)
    assert packed is not None
    before = packed.read_bytes()

    def full(self: zipfile.ZipFile, *_: Any) -> None:
        self.fp.write(b"half")  # type: ignore[union-attr]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    with pytest.raises(OSError, match="No space"):
        pack_songs(visit)
    assert files_in(cache) == {packed}
    assert packed.read_bytes() == before


def test_what_was_packed_is_deleted_with_its_visit_and_after_a_day(tmp_path: Path, cache: Path) -> None:
    visits = [visit_with(tmp_path, "a.wav") for _ in range(4)]
    packed = [pack_songs(visit) for visit in visits]
    forget_packed(visits[0])
    forget_packed(visits[0])
    now = time.time()
    for path, age_s in zip(packed[1:3], (DAY_S + HOUR_S, DAY_S - HOUR_S), strict=True):
        assert path is not None
        os.utime(path.parent, (now - age_s, now - age_s))
    assert pack_songs(visits[3]) == packed[3]
    assert files_in(cache) == {packed[2], packed[3]}


def test_a_visit_that_is_kept_no_longer_leaves_no_file(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acestep.serving.visits.MOST_SESSIONS", 1)
    studio = Studio("tiny", Overrides(), tmp_path / "out")
    try:
        visit = studio.sessions.of("ann")
        assert pack_songs(visit_with(tmp_path, "a.wav", visit=visit)) is not None
        studio.sessions.of("bob")
        assert files_in(cache) == set()
    finally:
        studio.close()
