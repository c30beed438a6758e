"""Damaged weights are seen by their headers and sizes: by `doctor`, `download` and every command that would load."""

import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from acestep.checkpoints.build import build
from acestep.checkpoints.catalog import CHECKPOINTS_VARIABLE
from acestep.checkpoints.configs import read_config
from acestep.checkpoints.download import download
from acestep.checkpoints.header import read_header
from acestep.checkpoints.intact import flaws
from acestep.errors import Exit, InvalidInputError, RunFailedError
from tests.acestep_command import Command, command
from tests.checkpoints import write_diffusers, write_original, write_weights

__all__ = ["command"]

TURBO = "acestep-v15-turbo"
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool, torch.float8_e4m3fn)


@pytest.fixture(scope="module")
def tiny():
    return build("tiny", dtype=torch.float32)


@pytest.fixture(scope="module")
def pristine(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_original(tiny, tmp_path_factory.mktemp("checkpoints"), TURBO, shards=2).parent


@pytest.fixture
def checkpoints(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A turbo checkpoint in two shards with its companions, which a test may damage."""
    shutil.copytree(pristine, tmp_path / "checkpoints")
    monkeypatch.setenv(CHECKPOINTS_VARIABLE, str(tmp_path / "checkpoints"))
    monkeypatch.setattr("acestep.checkpoints.locate.hub_snapshot", lambda repo: None)
    return tmp_path / "checkpoints"


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("whole") / "x.safetensors"
    tensors = {str(dtype): torch.zeros(3, 5).to(dtype) for dtype in DTYPES}
    save_file({**tensors, "scalar": torch.zeros(()), "none": torch.zeros(0, 4)}, file, metadata={"format": "pt"})
    return file.read_bytes()


def cut(file: Path, share: float) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def test_a_whole_file_of_every_type_is_read_as_it_is(whole_file: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(whole_file)
    header = read_header(tmp_path / "x.safetensors")
    assert {name: tensor.shape for name, tensor in header.items()} == {
        **{str(dtype): (3, 5) for dtype in DTYPES},
        "scalar": (),
        "none": (0, 4),
    }
    assert header["torch.bfloat16"].dtype == "BF16"


@given(data=st.data())
def test_a_file_cut_anywhere_or_with_bytes_added_is_told(whole_file: bytes, tmp_path_factory, data) -> None:
    file = tmp_path_factory.mktemp("cut") / "x.safetensors"
    length = data.draw(st.integers(0, len(whole_file) + 9).filter(lambda n: n != len(whole_file)))
    file.write_bytes((whole_file + bytes(9))[:length])
    with pytest.raises(InvalidInputError, match=r"x\.safetensors: is (empty|cut short|damaged)"):
        read_header(file)


@given(junk=st.binary(max_size=200), length=st.integers(0, 2**64 - 1))
def test_junk_never_raises_anything_else(tmp_path_factory, junk: bytes, length: int) -> None:
    file = tmp_path_factory.mktemp("junk") / "x.safetensors"
    for start in (length, len(junk)):
        file.write_bytes(start.to_bytes(8, "little") + junk)
        with suppress(InvalidInputError):
            assert isinstance(read_header(file), dict)


@given(data=st.data())
def test_a_header_with_a_byte_of_another_value_never_raises_anything_else(
    whole_file: bytes, tmp_path_factory, data
) -> None:
    file, content = tmp_path_factory.mktemp("garbled") / "x.safetensors", bytearray(whole_file)
    end = 8 + int.from_bytes(whole_file[:8], "little")
    content[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    with suppress(InvalidInputError):
        read_header(file)
    content[end // 2] = 0xFF  # never part of UTF-8
    file.write_bytes(content)
    with pytest.raises(InvalidInputError, match="damaged"):
        read_header(file)


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe{", b'{"a\xff": 1}', b"[]", b'{"a":', b"<html>"])
def test_a_configuration_that_is_none_is_told(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "config.json").write_bytes(junk)
    with pytest.raises(InvalidInputError, match=r"config\.json: is not a JSON object"):
        read_config(tmp_path / "config.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(InvalidInputError, match="a pipe or a device, not a file"):
        read_config(tmp_path / "pipe.json")


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {}},
        [],
    ],
)
def test_a_header_that_contradicts_itself_is_damage(tensors: object, tmp_path: Path) -> None:
    text = json.dumps(tensors).encode()
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(InvalidInputError, match="damaged"):
        read_header(tmp_path / "x")


def test_whole_checkpoints_in_both_layouts_have_no_flaw(checkpoints: Path, tiny, tmp_path: Path) -> None:
    assert [flaws(folder) for folder in sorted(checkpoints.iterdir())] == [(), (), ()]
    assert flaws(write_diffusers(tiny, tmp_path / "diffusers")) == ()


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "condition_encoder"])
def test_each_part_of_the_diffusers_layout_is_looked_at(part: str, tiny, tmp_path: Path) -> None:
    folder = write_diffusers(tiny, tmp_path / "diffusers")
    (file,) = (folder / part).glob("*.safetensors")
    cut(file, 0.5)
    assert [flaw.source for flaw in flaws(folder)] == [file]


def _empty(folder: Path, name: str) -> Path:
    (folder / name).write_bytes(b"")
    return folder / name


def _half(folder: Path, name: str) -> Path:
    cut(folder / name, 0.5)
    return folder / name


def _gone(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder / name


def _pointer(folder: Path, name: str) -> Path:
    """What git leaves of a large file without its extension for them."""
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    return folder / name


SHARD, INDEX = "model-00002-of-00002.safetensors", "model.safetensors.index.json"
DAMAGE = {
    "empty shard": (TURBO, SHARD, _empty),
    "half a shard": (TURBO, SHARD, _half),
    "missing shard": (TURBO, SHARD, _gone),
    "half an index": (TURBO, INDEX, _half),
    "empty index": (TURBO, INDEX, _empty),
    "half a configuration": (TURBO, "config.json", _half),
    "half a silence": (TURBO, "silence_latent.pt", _half),
    "no silence but a pointer": (TURBO, "silence_latent.pt", _pointer),
    "empty tokenizer": ("Qwen3-Embedding-0.6B", "tokenizer.json", _empty),
    "half a tokenizer": ("Qwen3-Embedding-0.6B", "tokenizer.json", _half),
    "no tokenizer but a pointer": ("Qwen3-Embedding-0.6B", "tokenizer.json", _pointer),
    "missing silence": (TURBO, "silence_latent.pt", _gone),
    "empty vae": ("vae", "diffusion_pytorch_model.safetensors", _empty),
    "half a text encoder": ("Qwen3-Embedding-0.6B", "model.safetensors", _half),
}
COMMANDS = {TURBO: "turbo", "vae": "vae", "Qwen3-Embedding-0.6B": "text-encoder"}


@pytest.mark.parametrize("damage", DAMAGE)
def test_doctor_and_generate_name_the_file_and_what_to_type(
    damage: str, checkpoints: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, file, spoil = DAMAGE[damage]
    spoiled = spoil(checkpoints / name, file)

    told = json.loads(command("doctor", "--json").out)["damaged"]
    assert len(told) == 1
    assert told[0].startswith(f"{spoiled}: ")
    assert told[0].endswith(f"acestep download {COMMANDS[name]}")
    assert f"damaged: {told[0]}" in command("doctor").out

    # Before what loads models is imported.
    monkeypatch.setitem(sys.modules, "acestep.api", None)
    refused = command("generate", "--caption", "x")
    assert refused.code == Exit.INVALID
    assert f"{spoiled}: " in refused.err
    assert f"acestep download {COMMANDS[name]}" in refused.err


@pytest.mark.parametrize(
    ("name", "file"),
    [(TURBO, "silence_latent.pt"), (TURBO, "config.json")]
    + [("Qwen3-Embedding-0.6B", file) for file in ("tokenizer.json", "vocab.json", "merges.txt")],
)
def test_a_pipe_in_the_place_of_a_file_is_told_without_waiting(name: str, file: str, checkpoints: Path) -> None:
    if file in ("vocab.json", "merges.txt"):
        (checkpoints / name / "tokenizer.json").unlink()
        (checkpoints / name / "vocab.json").write_text("{}")
        (checkpoints / name / "merges.txt").write_text("#version: 0.2\n")
    (checkpoints / name / file).unlink(missing_ok=True)
    os.mkfifo(checkpoints / name / file)
    (flaw,) = flaws(checkpoints / name)
    assert "a pipe" in str(flaw)


def test_an_interrupted_download_is_called_by_its_name(checkpoints: Path, command: Command) -> None:
    for shard in (checkpoints / TURBO).glob("model*"):
        shard.unlink()
    arrived = checkpoints / ".cache" / "huggingface" / "download" / TURBO / "ab12.cd34.incomplete"
    arrived.parent.mkdir(parents=True)
    arrived.write_bytes(b"half")
    assert "interrupted" in command("doctor").out
    assert "interrupted" in command("generate", "--caption", "x").err


@pytest.mark.parametrize("spoil", [_empty, _half, _gone])
def test_a_damaged_language_model_is_told_before_it_is_loaded(
    spoil, checkpoints: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoints / "acestep-5Hz-lm-0.6B"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    write_weights(folder, {"a": torch.zeros(64)})
    spoiled = spoil(folder, "model.safetensors")
    monkeypatch.setenv("MAX_CUDA_VRAM", "24")
    monkeypatch.setattr("acestep.cli.words._songwriting", lambda: pytest.fail("it must not be loaded"))
    refused = command("understand", "--lm", "0.6B")
    assert refused.code == Exit.INVALID
    assert str(spoiled.parent) in refused.err
    assert "acestep download 0.6B" in refused.err


def test_a_model_of_words_without_a_tokenizer_is_told(checkpoints: Path) -> None:
    folder = checkpoints / "Qwen3-Embedding-0.6B"
    (folder / "tokenizer.json").unlink()
    assert [flaw.source.name for flaw in flaws(folder)] == ["vocab.json", "merges.txt"]
    (folder / "vocab.json").write_text("{}")
    (folder / "merges.txt").write_text("#version: 0.2\n")
    assert flaws(folder) == ()


def test_a_file_without_weights_is_no_whole_file(checkpoints: Path) -> None:
    file = checkpoints / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({}, file)
    assert [flaw.source for flaw in flaws(file.parent)] == [file]


def test_an_index_whose_shard_lacks_a_tensor_is_told(checkpoints: Path) -> None:
    shard = checkpoints / TURBO / SHARD
    save_file({"other": torch.zeros(1)}, shard)
    assert [flaw.source for flaw in flaws(checkpoints / TURBO)] == [shard]


class Hub:
    """Gives what a pristine folder has, as the hub's library does: files that are there already stay as they are."""

    def __init__(self, pristine: Path, *, cut_at: float = 1.0) -> None:
        self._pristine = pristine
        self._cut_at = cut_at
        self.fetched: list[str] = []

    def snapshot_download(self, repo: str, *, local_dir: Path, allow_patterns: list[str]) -> None:
        for file in sorted(path for path in self._pristine.rglob("*") if path.is_file()):
            name = file.relative_to(self._pristine)
            target = local_dir / name
            if not target.exists() and any(pattern.startswith(name.parts[0]) for pattern in allow_patterns):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
                cut(target, self._cut_at)
                self.fetched.append(str(name))


@pytest.mark.parametrize("damage", DAMAGE)
def test_download_fetches_what_is_damaged_and_nothing_else(
    damage: str, checkpoints: Path, pristine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, file, spoil = DAMAGE[damage]
    spoil(checkpoints / name, file)
    hub = Hub(pristine)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    download("turbo", checkpoints)
    assert hub.fetched == [f"{name}/{file}"]
    assert not any(flaws(folder) for folder in checkpoints.iterdir())


def test_a_download_that_leaves_half_a_file_is_no_success(
    checkpoints: Path, pristine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _gone(checkpoints / TURBO, SHARD)
    monkeypatch.setattr("huggingface_hub.snapshot_download", Hub(pristine, cut_at=0.9).snapshot_download)
    with pytest.raises(RunFailedError, match=f"{SHARD}.* cut short.*run the same command again"):
        download("turbo", checkpoints)
