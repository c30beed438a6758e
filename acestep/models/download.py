"""Checkpoints from the hub into the checkpoints directory: weights, configurations and tokenizers, never code."""

import logging
from pathlib import Path

from acestep.errors import RunFailedError
from acestep.models.catalog import MAIN_REPO, Checkpoint, Kind, Layout, checkpoint_of, checkpoints_dir
from acestep.models.configs import has_parts
from acestep.models.locate import is_complete

_LOG = logging.getLogger(__name__)

PATTERNS = ("*.safetensors", "*.json", "*.txt", "silence_latent.pt")
"""What is fetched of a folder; `*` also matches folders below."""


def download(name: str, into: Path | None = None) -> Path:
    """Fetch the checkpoint called `name`, and the VAE and text encoder it needs; gives back its folder.

    A download cut short is resumed by the next call. Raises `UsageError` for a name that is in no catalog and
    `RunFailedError` when the network, the hub or the disk fails.
    """
    checkpoint = checkpoint_of(name)
    root = into or checkpoints_dir()
    wanted = [checkpoint, *(c for c in _companions(checkpoint) if not is_complete(root / c.id))]
    for repo in dict.fromkeys(c.repo for c in wanted):
        _fetch(repo, [c for c in wanted if c.repo == repo], root)
    folder = root / checkpoint.id
    if not (is_complete(folder) or has_parts(folder)):
        raise RunFailedError(f"{checkpoint.repo} was fetched, but {folder} holds no safetensors with a config.json")
    return folder


def _companions(checkpoint: Checkpoint) -> list[Checkpoint]:
    """What an original-layout DiT needs besides its own folder."""
    if checkpoint.kind is not Kind.DIT or checkpoint.layout is Layout.DIFFUSERS:
        return []
    return [checkpoint_of("vae"), checkpoint_of("text-encoder")]


def _fetch(repo: str, checkpoints: list[Checkpoint], root: Path) -> None:
    """Fetch all of `checkpoints` from the one repository that holds them."""
    import httpx
    from huggingface_hub import errors, snapshot_download

    if repo == MAIN_REPO:
        target, patterns = root, [f"{c.subfolder}/{pattern}" for c in checkpoints for pattern in PATTERNS]
    else:
        target, patterns = root / checkpoints[0].id, list(PATTERNS)
    _LOG.info("fetching %s of %s into %s", ", ".join(patterns), repo, target)
    try:
        snapshot_download(repo, local_dir=target, allow_patterns=patterns)
    # huggingface-hub uses httpx before 2.0 and httpx2 from then on, and imports the errors of either by one name.
    except (OSError, httpx.HTTPError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        raise RunFailedError(
            f"could not download {repo} into {target} ({type(error).__name__}: {_first_line(error)}); check the "
            "network, HF_HUB_OFFLINE and the free disk space. What has arrived is kept: the same command resumes"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
