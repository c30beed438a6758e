"""Finds a checkpoint's files: in the checkpoints directory, the hub's cache, or a given folder."""

from pathlib import Path

from acestep.checkpoints.catalog import (
    SIZES,
    Checkpoint,
    CheckpointKind,
    checkpoint_of,
    find,
    lm_checkpoint,
    no_such_model,
    variant_of,
)
from acestep.checkpoints.configs import MODEL_INDEX, architecture_in, has_parts
from acestep.checkpoints.intact import flaws, require_intact
from acestep.errors import InvalidInputError, MissingWeightsError, UsageError
from acestep.knobs import Variant
from acestep.regular_file import is_file, is_folder


def is_checkpoint(folder: Path) -> bool:
    """Return whether `folder` holds a checkpoint: one in the diffusers layout, or a configuration."""
    return has_parts(folder) or is_file(folder / "config.json")


def is_complete(folder: Path) -> bool:
    """Return whether a checkpoint's folder, such as the VAE's, holds its configuration and complete weights."""
    return is_checkpoint(folder) and not flaws(folder)


def locate(model: str, checkpoints: Path) -> Path:
    """The folder of the DiT `model`: a name in the catalog, a folder, or a repository in the hub's cache. No network.

    Raises `InvalidInputError` naming every folder searched and the download command, `UsageError` for a name that
    means nothing.
    """
    checkpoint = find(model)
    if checkpoint is not None:
        if checkpoint.kind is not CheckpointKind.DIT:
            raise UsageError(f"{checkpoint.id} is no DiT, so it cannot make music by itself; choose turbo or another")
        return _first(checkpoint, [checkpoints / checkpoint.id, *_in_cache(checkpoint)])
    folder = Path(model).expanduser()
    if is_checkpoint(folder):
        return folder
    if is_folder(folder):
        raise InvalidInputError(folder, f"holds neither {MODEL_INDEX} (diffusers layout) nor config.json (original)")
    if (cached := hub_snapshot(model)) is not None and is_checkpoint(cached):
        return cached
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        raise MissingWeightsError(model, "is neither a folder here nor a repository in the hub's cache")
    if model.startswith((".", "~")) or len(folder.parts) > 1:
        raise MissingWeightsError(folder, "no such folder")
    raise UsageError(no_such_model(model))


def require(model: str, checkpoints: Path) -> None:
    """Raise as `locate` does where the DiT `model` is not here, or not whole; one that is made in code always is."""
    if model in SIZES:
        return
    folder = locate(model, checkpoints)
    require_intact(folder)
    if not has_parts(folder):
        for companion in ("vae", "text-encoder"):
            require_intact(locate_companion(companion, folder, checkpoints))


def require_lm(name: str, checkpoints: Path) -> None:
    """Raise as `locate_lm` does where the language model `name` is not here, or not whole."""
    require_intact(locate_lm(name, checkpoints))


def locate_lm(name: str, checkpoints: Path) -> Path:
    """The folder of the language model `name`: a name in the catalog, else a folder. No network.

    Raises `InvalidInputError` naming every folder searched and the download command, `UsageError` for a name that
    means nothing.
    """
    folder = Path(name).expanduser()
    if find(name) is None and is_checkpoint(folder):
        return folder
    return locate_companion(lm_checkpoint(name).id, checkpoints, checkpoints)


def variant_at(model: str, checkpoints: Path) -> Variant:
    """The variant of `model`, anything that `locate` finds, without reading weights."""
    checkpoint = find(model)
    if checkpoint is not None and checkpoint.variant is not None:
        return checkpoint.variant
    folder = locate(model, checkpoints)
    return variant_of(architecture_in(folder), folder.name)


def locate_companion(name: str, beside: Path, checkpoints: Path) -> Path:
    """The folder of the VAE or text encoder `name` that a DiT folder in the original layout shares with others."""
    checkpoint = checkpoint_of(name)
    folders = [beside / checkpoint.id, beside.parent / checkpoint.id, checkpoints / checkpoint.id]
    return _first(checkpoint, [*folders, *_in_cache(checkpoint)])


def hub_snapshot(repo: str) -> Path | None:
    """The folder of `repo` in the hub's own cache, if it was ever downloaded there; no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(repo, local_files_only=True))
    except (OSError, HFValidationError):
        return None


def _in_cache(checkpoint: Checkpoint) -> list[Path]:
    snapshot = hub_snapshot(checkpoint.repo)
    return [] if snapshot is None else [snapshot / checkpoint.subfolder]


def _first(checkpoint: Checkpoint, folders: list[Path]) -> Path:
    for folder in folders:
        if is_checkpoint(folder):
            return folder
    searched = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    raise MissingWeightsError(
        checkpoint.id,
        f"not found in {searched}, nor in the hub's cache of {checkpoint.repo}",
        command=f"acestep download {checkpoint.called}",
    )
