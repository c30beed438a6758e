"""Which files of a folder are its weights; safetensors only, nothing is opened but an index."""

from pathlib import Path

from acestep.checkpoints.configs import read_config
from acestep.errors import InvalidInputError

_STEMS = ("model", "diffusion_pytorch_model")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The index or single file of weights in `folder`, then its shards; empty when it holds no safetensors."""
    for stem in _STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            return (index, *_shards(index))
        if (single := folder / f"{stem}.safetensors").is_file():
            return (single,)
    return ()


def _shards(index: Path) -> list[Path]:
    weight_map = read_config(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise InvalidInputError(index, "has no weight_map of file names")
    shards = sorted(set(weight_map.values()))
    if not shards:
        raise InvalidInputError(index, "names no file of weights")
    for name in shards:
        if Path(name).name != name:
            raise InvalidInputError(index, f"names {name!r}, a file outside its own folder")
        if not (index.parent / name).is_file():
            raise InvalidInputError(index.parent / name, "is missing; a download was cut short, so run it again")
    return [index.parent / name for name in shards]
