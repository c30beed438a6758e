"""Weights that are missing, damaged or not what they say are refused, and the error names the fault and its file."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from acestep.checkpoints.build import TINY_LATENT
from acestep.checkpoints.load import load
from acestep.errors import Exit, InvalidInputError, UsageError
from acestep.knobs import Variant
from tests import tiny_checkpoints
from tests.checkpoints import original_tensors, write_diffusers, write_weights

no_network, tiny = tiny_checkpoints.no_network, tiny_checkpoints.tiny
turbo_on_disk, written = tiny_checkpoints.turbo_on_disk, tiny_checkpoints.written


def test_missing_weights_name_the_folders_searched_and_the_download_command(tmp_path):
    with pytest.raises(InvalidInputError, match="acestep download xl-sft") as caught:
        load("xl-sft", dtype=torch.float32, checkpoints_dir=tmp_path)

    assert str(tmp_path / "acestep-v15-xl-sft") in str(caught.value)
    assert caught.value.exit is Exit.INVALID


@pytest.mark.parametrize("companion", ["vae", "Qwen3-Embedding-0.6B"])
def test_a_missing_companion_is_named(written, companion, tmp_path):
    (tmp_path / companion).rename(tmp_path / "hidden")

    with pytest.raises(InvalidInputError, match=f"{companion}.*acestep download"):
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)


@pytest.mark.parametrize("name", ["4B", "vae", "no-such-model"])
def test_a_name_that_is_no_music_model_is_a_usage_error(name, tmp_path):
    with pytest.raises(UsageError):
        load(name, dtype=torch.float32, checkpoints_dir=tmp_path)


def test_a_variant_that_the_weights_are_not_is_refused(written, tmp_path):
    with pytest.raises(UsageError, match="holds turbo, not base"):
        load("turbo", Variant.BASE, dtype=torch.float32, checkpoints_dir=tmp_path)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    "victim", ["decoder.layers.2.mlp.up_proj.weight", "null_condition_emb", "decoder.proj_in.1.bias"]
)
def test_a_missing_tensor_is_named_with_its_file(written, victim, shards, tmp_path):
    components, folder = written
    (folder / "model.safetensors").unlink()
    tensors = original_tensors(components)
    del tensors[victim]
    write_weights(folder, tensors, shards=shards)

    with pytest.raises(InvalidInputError, match=f"lacks {victim}") as caught:
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)
    assert Path(caught.value.source).parent == folder


@pytest.mark.parametrize("shards", [1, 3])
def test_an_unknown_tensor_is_named_with_its_file(written, shards, tmp_path):
    components, folder = written
    (folder / "model.safetensors").unlink()
    write_weights(folder, original_tensors(components) | {"decoder.surprise": torch.zeros(2)}, shards=shards)

    with pytest.raises(InvalidInputError, match=r"decoder\.surprise") as caught:
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)
    assert Path(caught.value.source).suffix == ".safetensors"


def test_a_misshapen_tensor_is_named_with_both_shapes(written, tmp_path):
    components, folder = written
    victim = "encoder.text_projector.weight"
    write_weights(folder, original_tensors(components) | {victim: torch.zeros(3, 5)})

    with pytest.raises(InvalidInputError, match=rf"{victim} has shape \[3, 5\]; expected \[64, 64\]"):
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_tensor_missing_from_a_diffusers_part_is_named(tiny, part, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_diffusers(tiny[Variant.TURBO], tmp_path / "model")
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    victim = max(tensors)
    del tensors[victim]
    save_file(tensors, file)

    with pytest.raises(InvalidInputError, match=f"lacks {victim}") as caught:
        load(str(folder), dtype=torch.float32)
    assert caught.value.source == file


def test_a_folder_with_pickled_weights_only_is_refused(written, tmp_path):
    components, folder = written
    (folder / "model.safetensors").unlink()
    torch.save(original_tensors(components), folder / "pytorch_model.bin")

    with pytest.raises(InvalidInputError, match=r"pytorch_model\.bin but no safetensors"):
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)


def pickled(protocol: int) -> Callable[[object, Path], object]:
    return lambda value, path: path.write_bytes(pickle.dumps(value, protocol))


class Trap:
    """Pickles to a call that leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("dump", [torch.save, pickled(2), pickled(5)])
def test_a_silence_latent_that_would_run_code_is_refused_and_does_not_run(written, dump, tmp_path):
    _, folder = written
    dump(Trap(tmp_path / "ran"), folder / "silence_latent.pt")

    with pytest.raises(InvalidInputError, match=r"silence_latent\.pt"):
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("shape", [(1, 15_000, TINY_LATENT), (1, TINY_LATENT, 750), (TINY_LATENT, 15_000)])
def test_a_misshapen_silence_latent_is_refused(written, shape, tmp_path):
    _, folder = written
    torch.save(torch.zeros(shape), folder / "silence_latent.pt")

    with pytest.raises(InvalidInputError, match=rf"expected a float tensor of shape \[1, {TINY_LATENT}, 15000\]"):
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)


def test_a_missing_silence_latent_is_an_error_and_never_zeros(written, tmp_path):
    _, folder = written
    (folder / "silence_latent.pt").unlink()

    with pytest.raises(InvalidInputError, match=r"silence_latent\.pt: is missing"):
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)


def test_a_truncated_weight_file_is_named(written, tmp_path):
    _, folder = written
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])

    with pytest.raises(InvalidInputError, match="damaged or cut short") as caught:
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)
    assert caught.value.source == file


def test_a_missing_shard_is_named(written, tmp_path):
    components, folder = written
    (folder / "model.safetensors").unlink()
    write_weights(folder, original_tensors(components), shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()

    with pytest.raises(InvalidInputError, match="model-00002-of-00003"):
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)


def test_an_index_cannot_reach_outside_its_folder(written, tmp_path):
    _, folder = written
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../vae/diffusion_pytorch_model.safetensors"}}))

    with pytest.raises(InvalidInputError, match="outside its own folder"):
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)


def test_a_tensor_stored_as_anything_but_floats_is_refused(written, tmp_path):
    components, folder = written
    tensors = original_tensors(components)
    victim = "decoder.condition_embedder.weight"
    write_weights(folder, tensors | {victim: tensors[victim].to(torch.int8)})

    with pytest.raises(InvalidInputError, match=f"{victim} is I8"):
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "changes", "complaint"),
    [
        ("acestep-v15-turbo/config.json", {"hidden_size": "wide"}, "hidden_size"),
        ("acestep-v15-turbo/config.json", {"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ("acestep-v15-turbo/config.json", {"num_hidden_layers": 5}, "layer_types"),
        ("acestep-v15-turbo/config.json", {"layer_types": ["sideways"] * 4}, "layer_types"),
        ("acestep-v15-turbo/config.json", {"hidden_size": 128}, "shape"),
        ("vae/config.json", {"downsampling_ratios": None}, "lacks downsampling_ratios"),
        ("vae/config.json", {"downsampling_ratios": [2, 4, 4, 8, 8]}, "2048 samples a frame"),
        ("vae/config.json", {"sampling_rate": 44_100}, "44100"),
        ("vae/config.json", {"decoder_input_channels": 32}, "decoder_input_channels is 32"),
        ("Qwen3-Embedding-0.6B/config.json", {"model_type": "llama"}, "model_type is 'llama'"),
        ("Qwen3-Embedding-0.6B/config.json", {"hidden_size": 32}, "hidden_size is 32"),
        ("Qwen3-Embedding-0.6B/config.json", {"num_hidden_layers": "two"}, "Qwen3"),
    ],
)
def test_a_configuration_that_cannot_be_right_is_named(written, file, changes, complaint, tmp_path):
    edit(tmp_path / file, **changes)

    with pytest.raises(InvalidInputError, match=complaint):
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)


def test_a_configuration_that_is_no_json_is_named(written, tmp_path):
    _, folder = written
    (folder / "config.json").write_text("{")

    with pytest.raises(InvalidInputError, match=r"config\.json: is not a JSON object"):
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)


def test_parts_that_describe_different_models_are_refused(tiny, tmp_path):
    folder = write_diffusers(tiny[Variant.TURBO], tmp_path / "model")
    edit(folder / "audio_token_detokenizer" / "config.json", rope_theta=10_000.0)

    with pytest.raises(InvalidInputError, match="rope_theta is 10000"):
        load(str(folder), dtype=torch.float32)


def test_a_tokenizer_that_wants_to_run_its_own_code_is_refused(written, tmp_path):
    folder = tmp_path / "Qwen3-Embedding-0.6B"
    (folder / "tokenizer.json").unlink()
    edit(
        folder / "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    )
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")

    with pytest.raises(InvalidInputError, match="tokenizer"):
        load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)
    assert not (tmp_path / "ran").exists()
