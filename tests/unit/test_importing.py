"""Large imports run without garbage collection, which is afterwards as it was."""

import gc

import pytest

from acestep.importing import lasting_imports, without_collection


@pytest.mark.parametrize("was_on", [True, False])
def test_collection_is_off_inside_and_afterwards_as_before(was_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    switched: list[bool] = []
    monkeypatch.setattr(gc, "isenabled", lambda: was_on)
    monkeypatch.setattr(gc, "enable", lambda: switched.append(True))
    monkeypatch.setattr(gc, "disable", lambda: switched.append(False))
    with pytest.raises(ImportError), without_collection():
        raise ImportError
    assert switched == ([False, True] if was_on else [False])


def test_lasting_imports_are_never_looked_at_again() -> None:
    looked_at: list[object] = []
    with lasting_imports():
        kept = [[] for _ in range(1_000)]
    try:
        looked_at += gc.get_objects()
        assert not {id(one) for one in kept} & {id(one) for one in looked_at}
    finally:
        gc.unfreeze()
