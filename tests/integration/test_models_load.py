"""Weights on disk: whatever layout they are in, what is loaded is what was written, or the error names the fault."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from acestep.errors import Exit, InvalidInputError, UsageError
from acestep.knobs import Variant
from acestep.models.build import TINY_LATENT, build
from acestep.models.components import Components
from acestep.models.load import load
from acestep.models.locate import variant_at
from tests.checkpoints import original_tensors, tensors_of, write_diffusers, write_original, write_weights

NAMES = {
    Variant.TURBO: "acestep-v15-turbo",
    Variant.SFT: "acestep-v15-sft",
    Variant.XL_BASE: "acestep-v15-xl-base",
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("loading must not touch the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-hub-cache"))


@pytest.fixture(scope="module")
def tiny():
    return {variant: build("tiny", variant, dtype=torch.float32) for variant in NAMES}


@pytest.fixture(scope="module")
def turbo_on_disk(tiny, tmp_path_factory) -> Path:
    return write_original(tiny[Variant.TURBO], tmp_path_factory.mktemp("turbo"), NAMES[Variant.TURBO]).parent


@pytest.fixture
def written(tiny, turbo_on_disk, tmp_path) -> tuple[Components, Path]:
    """A turbo checkpoint that the test may spoil."""
    shutil.copytree(turbo_on_disk, tmp_path, dirs_exist_ok=True)
    return tiny[Variant.TURBO], tmp_path / NAMES[Variant.TURBO]


def assert_same(loaded: Components, expected: Components) -> None:
    got, wanted = tensors_of(loaded), tensors_of(expected)
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("variant", NAMES)
def test_an_original_checkpoint_loads_to_the_tensors_it_was_made_from(tiny, variant, shards, tmp_path):
    write_original(tiny[variant], tmp_path, NAMES[variant], shards=shards)

    loaded = load(variant.value, variant, dtype=torch.float32, checkpoints_dir=tmp_path)

    assert_same(loaded, tiny[variant])
    assert (loaded.variant, loaded.is_noise) == (variant, "")
    parts = (loaded.transformer, loaded.condition_encoder, loaded.vae, loaded.text_encoder, loaded.audio_tokenizer)
    assert not any(part.training or any(p.requires_grad for p in part.parameters()) for part in parts)


@pytest.mark.parametrize("variant", NAMES)
@pytest.mark.parametrize("write", [lambda c, root: write_original(c, root, "finetune"), write_diffusers])
def test_the_variant_of_a_folder_is_known_before_its_weights_are_read(tiny, variant, write, tmp_path):
    folder = write(tiny[variant], tmp_path / "model")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()

    assert variant_at(str(folder), tmp_path) is variant
    assert variant_at(variant.value, tmp_path / "empty") is variant


@pytest.mark.parametrize("variant", NAMES)
def test_a_diffusers_checkpoint_loads_to_the_tensors_it_was_saved_from(tiny, variant, tmp_path):
    folder = write_diffusers(tiny[variant], tmp_path / "model")

    loaded = load(str(folder), dtype=torch.float32)

    assert_same(loaded, tiny[variant])
    assert loaded.variant is variant


def test_a_diffusers_checkpoint_may_leave_out_the_audio_tokenizers(tiny, tmp_path):
    whole = tiny[Variant.TURBO]
    fields = {name: getattr(whole, name) for name in Components.__struct_fields__}
    partial = Components(**fields | {"audio_tokenizer": None, "audio_token_detokenizer": None})

    loaded = load(str(write_diffusers(partial, tmp_path / "model")), dtype=torch.float32)

    assert loaded.audio_tokenizer is None
    assert loaded.audio_token_detokenizer is None
    assert_same(loaded, partial)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_the_library_loads_what_we_load(tiny, tmp_path):
    from diffusers import AceStepTransformer1DModel, AutoencoderOobleck

    folder = write_diffusers(tiny[Variant.XL_BASE], tmp_path / "model")
    ours = load(str(folder), dtype=torch.bfloat16)
    for part, cls in (("transformer", AceStepTransformer1DModel), ("vae", AutoencoderOobleck)):
        theirs = cls.from_pretrained(folder / part, torch_dtype=torch.bfloat16).state_dict()
        mine = getattr(ours, part).state_dict()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_weights_are_converted_to_the_asked_type_but_rotary_tables_keep_theirs(written, tmp_path):
    loaded = load("turbo", dtype=torch.bfloat16, checkpoints_dir=tmp_path)

    assert {p.dtype for p in loaded.transformer.parameters()} == {torch.bfloat16}
    assert loaded.condition_encoder.silence_latent.dtype == torch.bfloat16
    assert loaded.text_encoder.rotary_emb.inv_freq.dtype == torch.float32


def test_weights_stored_as_asked_are_views_of_the_file(written, tmp_path):
    loaded = load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)

    weight = loaded.transformer.layers[0].mlp.up_proj.weight
    addresses = [line.split()[0].split("-") for line in _mapped(tmp_path / NAMES[Variant.TURBO] / "model.safetensors")]
    assert any(int(start, 16) <= weight.data_ptr() < int(end, 16) for start, end in addresses)


def _mapped(file: Path) -> list[str]:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc to see what is mapped")
    return [line for line in maps.read_text().splitlines() if line.endswith(str(file))]


def test_a_folder_and_the_main_repository_beside_it_are_enough(tiny, tmp_path):
    folder = write_original(tiny[Variant.TURBO], tmp_path / "anywhere", "my-finetune")

    assert load(str(folder), dtype=torch.float32, checkpoints_dir=tmp_path / "empty").variant is Variant.TURBO


def test_companions_come_from_the_checkpoints_directory_when_the_folder_is_elsewhere(tiny, tmp_path):
    write_original(tiny[Variant.TURBO], tmp_path / "checkpoints", "acestep-v15-turbo")
    folder = (tmp_path / "checkpoints" / "acestep-v15-turbo").rename(tmp_path / "finetune")

    assert_same(load(str(folder), dtype=torch.float32, checkpoints_dir=tmp_path / "checkpoints"), tiny[Variant.TURBO])


def test_a_hub_snapshot_is_found_without_the_network(tiny, tmp_path, monkeypatch):
    repo = tmp_path / "hub" / "models--ACE-Step--Ace-Step1.5"
    write_original(tiny[Variant.TURBO], repo / "snapshots" / "0123abcd", "acestep-v15-turbo")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0123abcd")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    assert_same(load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path / "empty"), tiny[Variant.TURBO])


def test_the_loaded_tokenizer_is_the_checkpoint_s_own(written, tmp_path):
    tokenizer = load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path).tokenizer

    assert len(tokenizer.encode("피아노")) == len("피아노".encode())
    assert tokenizer.encode("slow piano", 4) == tokenizer.encode("slow piano")[:4]
    assert tokenizer.encode("a\ud800b") == tokenizer.encode("a?b")


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


def test_rope_theta_is_also_read_where_newer_releases_write_it(written, tmp_path):
    _, folder = written
    config = json.loads((folder / "config.json").read_text())
    del config["rope_theta"]
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": {"rope_theta": 5000.0}}))

    loaded = load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path)

    assert loaded.transformer.rope_theta == 5000.0
    assert loaded.condition_encoder.lyric_encoder.rope_theta == 5000.0


@pytest.mark.parametrize("head", [False, True])
def test_a_text_encoder_saved_as_a_language_model_loads_too(written, head, tmp_path):
    components, _ = written
    folder = tmp_path / "Qwen3-Embedding-0.6B"
    tensors = {f"model.{key}": tensor for key, tensor in components.text_encoder.state_dict().items()}
    if head:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    write_weights(folder, tensors)

    assert_same(load("turbo", dtype=torch.float32, checkpoints_dir=tmp_path), components)


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


@pytest.mark.parametrize("kind", ["tiny", "dummy"])
def test_models_made_in_code_say_that_they_are_noise(kind, monkeypatch):
    asked = []
    monkeypatch.setattr("acestep.models.load.build", lambda *args, **kwargs: asked.append((args, kwargs)))

    load(kind, Variant.XL_SFT, dtype=torch.float32)

    assert asked == [((kind, Variant.XL_SFT), {"dtype": torch.float32})]
