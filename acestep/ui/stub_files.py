"""Imports gradio without its stub files, which it writes into its own folder again at every import.

Editors read them; making them takes half of the time that the import takes.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_MODULE, _WRITER = "gradio.component_meta", "create_or_modify_pyi"


def leave_out_stub_files() -> None:
    """Have gradio write no stub files when it is imported; nothing changes if it has been imported."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        if hasattr(module, _WRITER):
            setattr(module, _WRITER, _write_nothing)


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        found = PathFinder.find_spec(name, path, target) if name == _MODULE else None
        if found is not None and isinstance(found.loader, SourceFileLoader):
            found.loader = _Loader(name, found.loader.path)
        return found


def _write_nothing(*_: Any) -> None:
    pass
