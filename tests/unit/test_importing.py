"""Large imports run without garbage collection, and leave it as it was."""

import gc

import pytest

from acestep.importing import without_collection


@pytest.mark.parametrize("was_on", [True, False])
def test_collection_is_off_inside_and_afterwards_as_before(was_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    switched: list[bool] = []
    monkeypatch.setattr(gc, "isenabled", lambda: was_on)
    monkeypatch.setattr(gc, "enable", lambda: switched.append(True))
    monkeypatch.setattr(gc, "disable", lambda: switched.append(False))
    with pytest.raises(ImportError), without_collection():
        raise ImportError
    assert switched == ([False, True] if was_on else [False])
