"""Weights on disk: whatever layout they are in, what is loaded is what was written."""

import json

import psutil
import pytest
import torch

from acestep.checkpoints.components import Components
from acestep.checkpoints.load import load
from acestep.checkpoints.locate import variant_at
from acestep.knobs import Variant
from tests import tiny_checkpoints
from tests.checkpoints import tensors_of, write_diffusers, write_original, write_weights
from tests.tiny_checkpoints import NAMES

no_network, tiny = tiny_checkpoints.no_network, tiny_checkpoints.tiny
turbo_on_disk, written = tiny_checkpoints.turbo_on_disk, tiny_checkpoints.written


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
    assert (loaded.variant, loaded.is_noise) == (variant, None)
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
    if not hasattr(psutil.Process, "memory_maps"):
        pytest.skip("this system does not say what is mapped")
    file = str(tmp_path / NAMES[Variant.TURBO] / "model.safetensors")
    mapped = [part for part in psutil.Process().memory_maps(grouped=False) if part.path == file]
    addresses = [part.addr.split("-") for part in mapped]
    assert any(int(start, 16) <= weight.data_ptr() < int(end, 16) for start, end in addresses)


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


@pytest.mark.parametrize("kind", ["tiny", "dummy"])
def test_models_made_in_code_say_that_they_are_noise(kind, monkeypatch):
    asked = []
    monkeypatch.setattr("acestep.checkpoints.load.build", lambda *args, **kwargs: asked.append((args, kwargs)))

    load(kind, Variant.XL_SFT, dtype=torch.float32)

    assert asked == [((kind, Variant.XL_SFT), {"dtype": torch.float32})]
