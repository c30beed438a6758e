"""What PyTorch lacks on Windows, for a process on a virtual machine of that system: flash attention, and Triton.

Python imports this module before anything else, as it is first on the process's path. It changes PyTorch when that is
imported, by PyTorch's public switch.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class WithoutFlash(Loader):
    """Runs PyTorch's own loader, and switches flash attention off."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As PyTorch's own."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """As PyTorch's own, and then without flash."""
        self._loader.exec_module(module)
        import torch

        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.is_flash_attention_available = lambda: False


class TorchFinder(MetaPathFinder):
    """Finds PyTorch, and nothing else."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Where Python finds it, with the loader above."""
        if name != "torch":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = WithoutFlash(spec.loader)
        return spec


sys.meta_path.insert(0, TorchFinder())
# A module of that name is not found from now on.
sys.modules["triton"] = None  # type: ignore[assignment]
