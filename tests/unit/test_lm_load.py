"""Language models: what is built has the published sizes, what is on disk is loaded as it was saved."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from acestep.checkpoints.catalog import CHECKPOINTS_VARIABLE, LM_ARCHITECTURES, checkpoint_of
from acestep.checkpoints.lm import LanguageModel, build_lm, load_lm, quantize_lm
from acestep.checkpoints.locate import locate_lm
from acestep.checkpoints.qwen import HEAD
from acestep.devices.cpu import CpuDevice
from acestep.errors import InvalidInputError, UsageError
from acestep.knobs import Backend, Knobs, Quantization
from acestep.lm.language import Language
from acestep.lm.tokenizer import COMPACT
from tests.checkpoints import write_weights
from tests.planner_tokenizers import trained_backend
from tests.tiny_planner import VOCABULARY, write_planner

FULL_SIZE = sorted(LM_ARCHITECTURES)


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return build_lm("tiny", dtype=torch.float32, vocab_size=99)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("loading must not touch the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-hub-cache"))


def _with_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{key}": tensor for key, tensor in tensors.items()}


def _with_head(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return _with_prefix(tensors) | {HEAD: tensors["embed_tokens.weight"].clone()}


def _write(
    model: LanguageModel,
    folder: Path,
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
    shards: int = 1,
    **fields: object,
) -> Path:
    folder.mkdir(parents=True)
    config = model.module.config.to_dict() | {"tie_word_embeddings": True} | fields
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder, change(dict(model.module.model.state_dict())), shards=shards)
    return folder


def _is_tied(model: LanguageModel) -> bool:
    return model.module.lm_head.weight is model.module.model.embed_tokens.weight


@pytest.mark.parametrize("lm_id", FULL_SIZE)
def test_full_size_models_have_the_parameters_of_the_checkpoints(lm_id: str) -> None:
    model = build_lm("dummy", lm_id, dtype=torch.bfloat16, materialise="meta")
    assert sum(weight.numel() for weight in model.module.parameters()) == checkpoint_of(lm_id).params
    assert _is_tied(model)
    assert (model.is_noise, model.dtype, model.vocabulary) == ("dummy", torch.bfloat16, 217_204)


@pytest.mark.parametrize(("lm_id", "linears"), list(zip(FULL_SIZE, (196, 196, 252), strict=True)))
def test_quantising_replaces_every_linear_layer_but_the_tied_head(lm_id: str, linears: int) -> None:
    model = build_lm("dummy", lm_id, dtype=torch.bfloat16, materialise="meta")
    quantize_lm(model, Quantization.INT8)
    kinds = [type(module.weight.data) for module in model.module.model.modules() if isinstance(module, nn.Linear)]
    assert len(kinds) == linears
    assert Tensor not in kinds
    assert _is_tied(model)
    assert type(model.module.lm_head.weight.data) is Tensor
    assert model.dtype is torch.bfloat16


def test_the_tiny_model_has_a_token_for_everything_its_tokenizer_says() -> None:
    assert build_lm("tiny", dtype=torch.float32, materialise="meta").vocabulary == COMPACT.size


def test_the_tiny_model_is_the_same_on_every_call(tiny: LanguageModel) -> None:
    again = build_lm("tiny", dtype=torch.float32, vocab_size=99)
    for key, tensor in tiny.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[key], tensor), key
    assert tiny.is_noise == "tiny"
    assert _is_tied(tiny)


@pytest.mark.parametrize("change", [dict, _with_prefix, _with_head], ids=["bare keys", "prefix", "prefix and head"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_is_loaded_whatever_its_keys_are_called(
    tiny: LanguageModel, tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], shards: int
) -> None:
    folder = _write(tiny, tmp_path / "some-lm", change, shards)
    loaded = load_lm(str(folder), dtype=torch.float32)
    for key, tensor in tiny.module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[key], tensor), key
    assert _is_tied(loaded)
    assert (loaded.id, loaded.is_noise) == ("some-lm", None)
    assert not any(weight.requires_grad for weight in loaded.module.parameters())
    assert not loaded.module.training


@pytest.mark.parametrize("name", ["1.7B", "acestep-5Hz-lm-1.7B", "ACESTEP-5hz-lm-1.7b"])
def test_a_name_of_the_catalog_is_found_among_the_checkpoints(tiny: LanguageModel, tmp_path: Path, name: str) -> None:
    _write(tiny, tmp_path / "acestep-5Hz-lm-1.7B")
    loaded = load_lm(name, dtype=torch.bfloat16, checkpoints_dir=tmp_path)
    assert (loaded.id, loaded.dtype) == ("acestep-5Hz-lm-1.7B", torch.bfloat16)


@pytest.fixture
def called_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The released 0.6B among the checkpoints, and in the working directory another checkpoint called `0.6B`."""
    released = write_planner(tmp_path / "checkpoints" / "acestep-5Hz-lm-0.6B", vocabulary=COMPACT.size)
    trained_backend().save(str(released / "tokenizer.json"))
    write_planner(tmp_path / "0.6B")
    monkeypatch.setenv(CHECKPOINTS_VARIABLE, str(released.parent))
    monkeypatch.chdir(tmp_path)
    return released


def test_a_name_of_the_catalog_comes_before_a_folder_called_so(called_alike: Path) -> None:
    assert locate_lm("0.6B", called_alike.parent) == called_alike
    assert locate_lm("./0.6B", called_alike.parent) == Path("0.6B")
    assert load_lm("0.6B", dtype=torch.float32).vocabulary == COMPACT.size
    assert load_lm("./0.6B", dtype=torch.float32).vocabulary == VOCABULARY


@pytest.mark.usefixtures("called_alike")
def test_the_tokenizer_is_read_from_the_folder_of_the_weights() -> None:
    knobs = Knobs(lm="0.6B", backend=Backend.PT)
    language = Language("0.6B", knobs, CpuDevice(), longest_s=10, warn=pytest.fail)
    assert language.modules()
    # The folder called so has no tokenizer.
    with pytest.raises(InvalidInputError, match=r"0\.6B.*holds no tokenizer"):
        Language("./0.6B", knobs, CpuDevice(), longest_s=10, warn=pytest.fail)


def test_a_checkpoint_that_is_not_there_names_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="acestep download 4B"):
        load_lm("4B", dtype=torch.float32, checkpoints_dir=tmp_path)


@pytest.mark.parametrize("name", ["turbo", "9B", "", "dummy", "dummy:tiny", "no/such/folder"])
def test_a_name_that_means_nothing_lists_those_that_do(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"0\.6B, 1\.7B, 4B.*tiny or dummy:0\.6B"):
        load_lm(name, dtype=torch.float32, checkpoints_dir=tmp_path)


def _without_one(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key != "norm.weight"}


def _with_one_more(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"layers.9.self_attn.q_norm.weight": torch.ones(16)}


def _with_another_shape(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"norm.weight": torch.ones(65)}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_without_one, "lacks norm.weight"),
        (_with_one_more, "holds layers.9.self_attn.q_norm.weight"),
        (_with_another_shape, r"norm.weight has shape \[65\]; expected \[64\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tiny: LanguageModel, tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], problem: str
) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        load_lm(str(_write(tiny, tmp_path / "lm", change)), dtype=torch.float32)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'; expected 'qwen3'"),
        ({"hidden_size": "wide"}, "is no Qwen3 configuration"),
        ({"layer_types": ["sliding_attention"] * 3}, "sliding_attention; expected full_attention alone"),
        ({"tie_word_embeddings": False}, "head of its own"),
    ],
)
def test_a_configuration_of_something_else_is_refused(
    tiny: LanguageModel, tmp_path: Path, fields: dict[str, object], problem: str
) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        load_lm(str(_write(tiny, tmp_path / "lm", _with_head, **fields)), dtype=torch.float32)


def test_pickled_weights_are_refused(tiny: LanguageModel, tmp_path: Path) -> None:
    folder = _write(tiny, tmp_path / "lm")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InvalidInputError, match="pickled weights can run code"):
        load_lm(str(folder), dtype=torch.float32)
