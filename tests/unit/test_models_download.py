"""A download fetches what a model needs, only files that cannot run, and fails in a sentence."""

from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from acestep.checkpoints.catalog import CHECKPOINTS, MAIN_REPO, CheckpointKind, Layout
from acestep.checkpoints.download import download
from acestep.errors import Exit, RunFailedError, UsageError

hub_http = import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
"""The HTTP library that huggingface-hub speaks through: httpx before 2.0, httpx2 from then on."""

FILES = {
    "config.json": True,
    "model.safetensors": True,
    "model-00001-of-00002.safetensors": True,
    "silence_latent.pt": True,
    "merges.txt": True,
    "pytorch_model.bin": False,
    "modeling_acestep_v15_turbo.py": False,
    "optimizer.pt": False,
    "demo.wav": False,
}


def _content(name: str) -> bytes:
    if name == "config.json":
        return b"{}"
    if not name.endswith(".safetensors"):
        return b""
    header = b'{"x":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}'
    return len(header).to_bytes(8, "little") + header + b"\0"


@pytest.fixture
def hub(monkeypatch):
    """A hub whose repositories hold every folder of the catalog; records what was asked of it."""
    calls: list[tuple[str, Path, list[str]]] = []

    def snapshot_download(repo, *, local_dir, allow_patterns):
        calls.append((repo, Path(local_dir), list(allow_patterns)))
        folders = [c for c in CHECKPOINTS if c.repo == repo]
        for checkpoint in folders:
            for name in FILES:
                path = f"{checkpoint.subfolder}/{name}".removeprefix("/")
                if any(fnmatch(path, pattern) for pattern in allow_patterns):
                    (Path(local_dir) / path).parent.mkdir(parents=True, exist_ok=True)
                    (Path(local_dir) / path).write_bytes(_content(name))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return calls


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda c: c.id)
def test_the_folder_given_back_holds_the_weights_and_nothing_that_runs(hub, checkpoint, tmp_path):
    folder = download(checkpoint.short or checkpoint.id, tmp_path)

    assert folder == tmp_path / checkpoint.id
    assert {path.name for path in folder.iterdir()} == {name for name, wanted in FILES.items() if wanted}
    assert all(FILES[path.name] for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda c: c.id)
def test_only_a_model_in_the_original_layout_brings_the_vae_and_the_text_encoder(hub, checkpoint, tmp_path):
    download(checkpoint.id, tmp_path)

    shared = {c.id for c in CHECKPOINTS if c.kind in (CheckpointKind.VAE, CheckpointKind.TEXT_ENCODER)}
    needs = shared if checkpoint.kind is CheckpointKind.DIT and checkpoint.layout is Layout.ORIGINAL else set()
    assert {path.name for path in tmp_path.iterdir()} == needs | {checkpoint.id}


def test_a_repository_is_asked_once(hub, tmp_path):
    download("turbo", tmp_path)
    assert [repo for repo, _, _ in hub] == [MAIN_REPO]


def test_the_shared_parts_are_not_fetched_again_but_the_model_itself_is_resumed(hub, tmp_path):
    download("turbo", tmp_path)
    hub.clear()
    download("xl-sft", tmp_path)
    download("xl-sft", tmp_path)
    assert [repo for repo, _, _ in hub] == ["ACE-Step/acestep-v15-xl-sft"] * 2


def test_an_unknown_name_is_a_usage_error_and_asks_nothing(hub, tmp_path):
    with pytest.raises(UsageError, match="xxl"):
        download("xxl", tmp_path)
    assert hub == []


@pytest.mark.parametrize(
    "failure",
    [
        OfflineModeIsEnabled("offline mode is enabled"),
        LocalEntryNotFoundError("no connection"),
        httpx.ReadTimeout("the read timed out"),
        hub_http.ReadTimeout("the read timed out"),
        OSError(28, "No space left on device"),
        UnicodeError("label empty or too long"),
    ],
    ids=lambda e: f"{type(e).__module__}.{type(e).__name__}",
)
def test_a_failed_download_says_what_failed_and_that_it_resumes(failure, monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)

    with pytest.raises(RunFailedError, match="resumes") as caught:
        download("turbo", tmp_path)
    assert caught.value.exit is Exit.RUN_FAILED
    assert MAIN_REPO in str(caught.value)
    assert str(failure) in str(caught.value)


def test_a_repository_without_weights_is_no_success(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: None)

    with pytest.raises(RunFailedError, match="was fetched, but"):
        download("turbo", tmp_path)
