"""Which files of a folder are its weights; safetensors only, nothing is opened but an index."""

from pathlib import Path

from acestep.checkpoints.configs import read_config, shortened
from acestep.errors import InvalidInputError
from acestep.regular_file import is_file

_LONGEST_NAME = 200
"""Characters of a shard's name; file systems keep 255 bytes, and published names have 32."""

_STEMS = ("model", "diffusion_pytorch_model")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The index or single file of weights in `folder`, then its shards; empty when it holds no safetensors."""
    for stem in _STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if is_file(index):
            return (index, *_shards(index))
        if is_file(single := folder / f"{stem}.safetensors"):
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
            raise InvalidInputError(index, f"names {shortened(name)}, a file outside its own folder")
        if len(name) > _LONGEST_NAME:
            raise InvalidInputError(index, f"names a file with {len(name):,} characters, {shortened(name)}")
        if not is_file(index.parent / name):
            raise InvalidInputError(index.parent / name, "is missing; a download was cut short, so run it again")
    return [index.parent / name for name in shards]
