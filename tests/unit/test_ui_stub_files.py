"""gradio is imported as it is, but for the stub files that it would write into its own folder."""

import inspect
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType

import gradio
import pytest

import acestep.ui
from acestep.ui.stub_files import _Finder, leave_out_stub_files

NAME = "gradio.component_meta"


def executed(finder: type) -> ModuleType:
    """A second copy of the module, as a finder has it; the imported one stays."""
    spec = finder.find_spec(NAME, gradio.__path__)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_component_is_made_without_its_stub_file(monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[type] = []
    monkeypatch.setattr(inspect, "getfile", lambda of: sources.append(of) or __file__)
    for finder, looked_for in ((PathFinder, 1), (_Finder, 0)):
        module = executed(finder)
        sources.clear()
        # This file has no class of that name, so gradio's own writer would raise.
        if looked_for:
            with pytest.raises(ValueError, match="class source"):
                module.ComponentMeta("Bare", (), {"EVENTS": []})
        else:
            assert module.ComponentMeta("Bare", (), {"EVENTS": []}).__name__ == "Bare"
        assert len(sources) == looked_for


def test_every_other_name_of_the_module_is_kept() -> None:
    assert vars(executed(_Finder)).keys() == vars(executed(PathFinder)).keys()


def test_no_other_module_is_found_here_and_the_page_asks_once() -> None:
    assert _Finder.find_spec("gradio.blocks", gradio.__path__) is None
    assert _Finder.find_spec("json") is None
    leave_out_stub_files()
    assert acestep.ui
    assert sys.meta_path.count(_Finder) == 1
