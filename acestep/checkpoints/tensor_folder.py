"""The safetensors of one folder: which tensors they hold, checked strictly, read one at a time."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from acestep.checkpoints.configs import some
from acestep.checkpoints.header import FLOATS
from acestep.checkpoints.weight_files import weight_files
from acestep.errors import InvalidInputError, MissingWeightsError

_PICKLES = ("*.bin", "*.ckpt", "*.pth")


class TensorFolder:
    """An open view of the safetensors in one folder; nothing is read before `read`.

    `source` is the file to name in errors: the index, or the single file. Raises `InvalidInputError` for a folder
    without safetensors and for a damaged file.
    """

    def __init__(self, folder: Path) -> None:
        files = weight_files(folder)
        if not files:
            raise MissingWeightsError(folder, _why_empty(folder))
        self.source = files[0]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._file_of: dict[str, Path] = {}
        for file in files if len(files) == 1 else files[1:]:
            self._list(file)

    def _list(self, file: Path) -> None:
        try:
            with safe_open(file, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - not a mapping
                    view = tensors.get_slice(key)
                    if view.get_dtype() not in FLOATS:
                        raise InvalidInputError(file, f"{key} is {view.get_dtype()}; expected a float tensor")
                    if key in self._file_of:
                        raise InvalidInputError(file, f"{key} is also in {self._file_of[key].name}")
                    self.shapes[key], self._file_of[key] = tuple(view.get_shape()), file
        except (SafetensorError, OSError) as error:
            raise InvalidInputError(file, f"is damaged or cut short ({error}); delete and download it again") from error

    def check(self, expected: Mapping[str, tuple[int, ...]], *, ignored: Collection[str] = ()) -> None:
        """Require exactly the tensors `expected`, and their shapes; raises `InvalidInputError` naming what differs."""
        found = self.shapes.keys() - set(ignored)
        if missing := sorted(expected.keys() - found):
            raise InvalidInputError(self.source, f"lacks {some(missing)}")
        if extra := sorted(found - expected.keys()):
            raise InvalidInputError(self._file_of[extra[0]], f"holds {some(extra)}, which no part of the model has")
        for key, shape in expected.items():
            if self.shapes[key] != shape:
                raise InvalidInputError(
                    self._file_of[key], f"{key} has shape {list(self.shapes[key])}; expected {list(shape)}"
                )

    def read(self, names: Mapping[str, str], dtype: torch.dtype) -> dict[str, Tensor]:
        """The tensors in `names` (key here -> key to give back) as `dtype`.

        A tensor already stored as `dtype` stays a view of the file; others are converted one at a time.
        """
        tensors: dict[str, Tensor] = {}
        for file in sorted({self._file_of[key] for key in names}):
            with safe_open(file, framework="pt") as opened:
                for key, name in names.items():
                    if self._file_of[key] == file:
                        tensors[name] = opened.get_tensor(key).to(dtype)
        return tensors


def _why_empty(folder: Path) -> str:
    pickles = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
    if pickles:
        return f"holds {some(pickles)} but no safetensors; pickled weights can run code when read and are refused"
    return "holds no model.safetensors or diffusion_pytorch_model.safetensors; was its download cut short?"
