"""Checkpoints from the hub into the checkpoints directory: weights, configurations and tokenizers, never code."""

import logging
import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from acestep.checkpoints.catalog import MAIN_REPO, Checkpoint, CheckpointKind, Layout, checkpoint_of, checkpoints_dir
from acestep.checkpoints.intact import flaws
from acestep.checkpoints.locate import is_complete
from acestep.errors import RunFailedError, first_line
from acestep.proxies import in_use, shown, with_proxies

_LOG = logging.getLogger(__name__)

PATTERNS = ("*.safetensors", "*.json", "*.txt", "silence_latent.pt")
"""Patterns of the files that are downloaded; `*` also matches folders below."""


def download(name: str, into: Path | None = None) -> Path:
    """Download the checkpoint called `name`, and the VAE and text encoder it needs; return its folder.

    An interrupted download is resumed by the next call; damaged files are downloaded again. Raises `UsageError` for an
    unknown name or a proxy that cannot be used, `RunFailedError` if the network, the hub or the disk fails.
    """
    checkpoint = checkpoint_of(name)
    root = into or checkpoints_dir()
    wanted = [checkpoint, *(c for c in _companions(checkpoint) if not is_complete(root / c.id))]
    with with_proxies():
        for known in wanted:
            _remove_damaged(root / known.id)
        for repo in dict.fromkeys(c.repo for c in wanted):
            _fetch(repo, [c for c in wanted if c.repo == repo], root)
    for known in wanted:
        _require_whole(known, root / known.id)
    return root / checkpoint.id


def _remove_damaged(folder: Path) -> None:
    """The hub's library would consider a file that it has downloaded once as complete, even if it was damaged later."""
    for flaw in flaws(folder):
        file = Path(flaw.source)
        try:
            if file.is_file():
                file.unlink()
        except OSError as error:
            raise RunFailedError(f"{file} {flaw.problem}, and cannot be deleted ({error.strerror})") from None


def _require_whole(checkpoint: Checkpoint, folder: Path) -> None:
    for flaw in flaws(folder):
        raise RunFailedError(
            f"{checkpoint.repo} was fetched, but {flaw}; check the free disk space and run the same command again"
        )


def _companions(checkpoint: Checkpoint) -> list[Checkpoint]:
    """The other checkpoints that an original-layout DiT needs."""
    if checkpoint.kind is not CheckpointKind.DIT or checkpoint.layout is Layout.DIFFUSERS:
        return []
    return [checkpoint_of("vae"), checkpoint_of("text-encoder")]


def _fetch(repo: str, checkpoints: list[Checkpoint], root: Path) -> None:
    """Download all of `checkpoints` from the one repository that contains them."""
    from huggingface_hub import snapshot_download

    if repo == MAIN_REPO:
        target, patterns = root, [f"{c.subfolder}/{pattern}" for c in checkpoints for pattern in PATTERNS]
    else:
        target, patterns = root / checkpoints[0].id, list(PATTERNS)
    _LOG.info("fetching %s of %s into %s", ", ".join(patterns), repo, target)
    try:
        snapshot_download(repo, local_dir=target, allow_patterns=patterns)
    except _failures() as error:
        hub = {name: os.environ[name] for name in ("HF_ENDPOINT",) if name in os.environ}
        proxies = "".join(f", {name}={shown(value)}" for name, value in (in_use(os.environ) | hub).items())
        raise RunFailedError(
            f"could not download {repo} into {target} ({type(error).__name__}: {first_line(error)}); check the "
            f"network{proxies}, HF_HUB_OFFLINE and the free disk space. What has arrived is kept: the same command"
            " resumes"
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    """The exceptions of the hub's library if the network, the hub or the disk fails.

    Older releases of it use httpx and newer ones httpx2; hf-xet, which transfers large files, raises `RuntimeError`;
    Python raises `UnicodeError` for a name that no host can have.
    """
    libraries = [import_module(name) for name in ("httpx", "httpx2") if find_spec(name) is not None]
    of_http = (error for http in libraries for error in (http.HTTPError, http.InvalidURL))
    return (OSError, RuntimeError, UnicodeError, *of_http)
