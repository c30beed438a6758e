"""An adapter that is damaged, of another kind or for another model is refused, and the error names what and where."""

import copy
import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from acestep.adapters.choice import Adapter
from acestep.adapters.files import read_adapter_file
from acestep.adapters.fuse import fuse
from acestep.checkpoints.build import build
from acestep.errors import Exit, InvalidInputError
from tests.adapters import NAMES, lora, numbers, write
from tests.counted import counted

LAYER = "layers.0.self_attn.to_q"
NAME = NAMES["kohya"](LAYER)
SHAPE = (64, 64)
DRAW = np.random.default_rng(5)

Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    return build("tiny", dtype=torch.float32).transformer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return lora(tmp_path, LAYER, SHAPE, DRAW, names="kohya", endings="kohya").path


def refused(path: Path, transformer: nn.Module, scale: float = 1.0) -> str:
    """What is said about an adapter that cannot be used; no weight has changed then."""
    before = dict(transformer.named_parameters())
    with pytest.raises(InvalidInputError) as caught:
        fuse(transformer, [Adapter(path=path, scale=scale)])
    assert caught.value.exit is Exit.INVALID
    assert all(tensor is before[name] for name, tensor in transformer.named_parameters())
    return str(caught.value)


def with_tensor(key: str, *shape: int, dtype: torch.dtype = torch.float32) -> Change:
    return lambda tensors: tensors | {key: torch.ones(shape, dtype=dtype)}


def without(key: str) -> Change:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name != key}


def instead(old: str, new: str) -> Change:
    return lambda tensors: {key.replace(old, new): tensor for key, tensor in tensors.items()}


CHANGES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "a LoHa": (with_tensor(f"{NAME}.hada_w1_a", 64, 4), (f"{NAME}.hada_w1_a", "no LoRA or LoKr has")),
    "a bias": (with_tensor(f"{NAME}.lora_up.bias", 64), (f"{NAME}.lora_up.bias",)),
    "a whole weight": (with_tensor("layers.0.self_attn.q_proj.weight", *SHAPE), ("q_proj.weight",)),
    "another part": (with_tensor("encoder.layers.0.mlp.up_proj.lora_A.weight", 4, 64), ("make no whole",)),
    "no up": (without(f"{NAME}.lora_up.weight"), (f"{NAME}.lora_down.weight", "no whole LoRA or LoKr")),
    "half a LoKr": (with_tensor(f"{NAME}.lokr_w1", 4, 4), (f"{NAME}.lokr_w1", "no whole")),
    "a core alone": (with_tensor(f"{NAME}.lokr_t2", 2, 2, 2), ("no whole",)),
    "two downs": (with_tensor(f"{NAME}.lora_A.weight", 4, 64), (f"{NAME}.lora_A.weight", "the same part")),
    "another rank": (with_tensor(f"{NAME}.lora_down.weight", 3, 64), ("[64, 4]", "[3, 64]", "multiplied")),
    "another width": (with_tensor(f"{NAME}.lora_down.weight", 4, 2_560), ("[64, 2560]", "[64, 64]", "--model")),
    "a vector": (with_tensor(f"{NAME}.lora_down.weight", 4), ("multiplied",)),
    "nothing in it": (with_tensor(f"{NAME}.lora_up.weight", 0, 4), ("no values",)),
    "whole numbers": (with_tensor(f"{NAME}.lora_up.weight", 64, 4, dtype=torch.int8), ("is I8", "F32")),
    "several alphas": (with_tensor(f"{NAME}.alpha", 2), (f"{NAME}.alpha", "one number")),
    "odd lengths": (with_tensor(f"{NAME}.dora_scale", 3, 1), ("[3, 1]", "[64, 64]")),
    "no such layer": (instead("layers_0", "layers_31"), ("layers_31", "another model")),
    "another architecture": (
        instead("layers_0_self_attn_q_proj", "transformer_blocks_0_attn_to_q"),
        ("another model",),
    ),
    "the last step": (instead("layers_0_self_attn_q_proj", "proj_out_1"), ("proj_out_1", "another model")),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_is_damaged_or_foreign_is_named(case: str, file: Path, tiny: nn.Module) -> None:
    change, words = CHANGES[case]
    save_file(change(load_file(file)), file)
    said = refused(file, tiny)
    assert str(file) in said
    for word in words:
        assert word in said


def test_a_layer_by_two_names_is_refused(file: Path, tiny: nn.Module) -> None:
    tensors = load_file(file)
    other = NAMES["diffusers"](LAYER)
    save_file(tensors | {key.replace(NAME, other): tensor.clone() for key, tensor in tensors.items()}, file)
    assert "twice" in refused(file, tiny)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_a_file_cut_short_is_refused(share: float, file: Path, tiny: nn.Module) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    assert str(file) in refused(file, tiny)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_file_with_other_bytes_is_used_or_refused(edits: list[tuple[int, int]], file: Path, tiny: nn.Module) -> None:
    """Those of the header, and of the first numbers."""
    content = file.read_bytes()
    changed = bytearray(content)
    for place, byte in edits:
        changed[place] = byte
    file.write_bytes(changed)
    try:
        with suppress(InvalidInputError):
            fuse(copy.deepcopy(nn.ModuleDict({"layers": tiny.layers[:1]})), [Adapter(path=file)])
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["lora_up.weight", "alpha"])
def test_values_that_are_no_numbers_are_refused(value: float, key: str, file: Path, tiny: nn.Module) -> None:
    tensors = load_file(file)
    save_file(tensors | {f"{NAME}.{key}": torch.full_like(tensors[f"{NAME}.{key}"], value)}, file)
    said = refused(file, tiny)
    assert LAYER in said
    assert "no numbers" in said


def test_weights_that_float16_cannot_hold_are_refused(file: Path, tiny: nn.Module) -> None:
    tensors = load_file(file)
    save_file(tensors | {f"{NAME}.alpha": torch.tensor(1e6)}, file)
    assert "smaller scale" in refused(file, copy.deepcopy(tiny).half())


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt"])
def test_pickles_are_never_opened(suffix: str, tmp_path: Path, tiny: nn.Module) -> None:
    class Opened:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "opened"),)

    file = tmp_path / "folder" / f"adapter_model{suffix}"
    file.parent.mkdir()
    file.write_bytes(pickle.dumps(Opened()))
    for path in (file, file.parent):
        assert "pickled" in refused(path, tiny)
    file.rename(disguised := file.with_suffix(".safetensors"))
    assert "no safetensors file" in refused(disguised, tiny) or "damaged" in refused(disguised, tiny)
    assert not (tmp_path / "opened").exists()


def test_a_folder_is_an_adapter_if_it_holds_one(file: Path, tmp_path: Path, tiny: nn.Module) -> None:
    folder = tmp_path / "several"
    folder.mkdir()
    assert "no adapter" in refused(folder, tiny)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(file.read_bytes())
    assert "its folder adapter does" in refused(folder, tiny)
    (folder / "one.safetensors").write_bytes(file.read_bytes())
    assert read_adapter_file(folder).weights == folder / "one.safetensors"
    (folder / "two.safetensors").write_bytes(file.read_bytes())
    said = refused(folder, tiny)
    assert "one.safetensors, two.safetensors" in said
    for name in ("lokr_weights", "pytorch_lora_weights", "adapter_model"):
        (folder / f"{name}.safetensors").write_bytes(file.read_bytes())
        assert read_adapter_file(folder).weights.stem == name


def test_what_is_no_file_is_refused_at_once(tmp_path: Path, tiny: nn.Module) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path / "none", tmp_path / "pipe.safetensors", Path("/dev/zero"), tmp_path / ("x" * 300)):
        assert "neither a file nor a folder" in refused(path, tiny)


CONFIGS = {
    "no JSON": ("{", "JSON"),
    "no rank": ('{"lora_alpha": 4}', "`r`"),
    "no alpha": ('{"r": 4}', "lora_alpha"),
    "rank 0": ('{"r": 0, "lora_alpha": 4}', ">= 1"),
    "rank 0 of a layer": ('{"r": 4, "lora_alpha": 4, "rank_pattern": {"q_proj": 0}}', ">= 1"),
    "another rank": ('{"r": 8, "lora_alpha": 4}', "rank 4"),
    "another kind": ('{"r": 4, "lora_alpha": 4, "peft_type": "IA3"}', "IA3"),
    "other products": ('{"r": 4, "lora_alpha": 4, "layer_replication": [[0, 4]]}', "layer_replication"),
    "for some tokens": ('{"r": 4, "lora_alpha": 4, "alora_invocation_tokens": [1]}', "alora_invocation_tokens"),
    "lengths that lack": ('{"r": 4, "lora_alpha": 4, "use_dora": true}', "lora_magnitude_vector"),
    "a list": ("[]", "JSON"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_of_another_kind_is_refused(case: str, tmp_path: Path, tiny: nn.Module) -> None:
    text, word = CONFIGS[case]
    made = lora(tmp_path, LAYER, SHAPE, DRAW, told="config")
    (tmp_path / "adapter_config.json").write_text(text)
    assert word in refused(made.path, tiny)


def test_without_its_configuration_the_scale_of_peft_is_not_known(tmp_path: Path, tiny: nn.Module) -> None:
    made = lora(tmp_path, LAYER, SHAPE, DRAW, told="config")
    (tmp_path / "adapter_config.json").unlink()
    assert "adapter_config.json" in refused(made.path, tiny)


@pytest.mark.parametrize("pattern", ["(a+)+$", "q_pro.", ".*"])
def test_patterns_are_names_and_never_expressions(pattern: str, tmp_path: Path, tiny: nn.Module) -> None:
    """PEFT would evaluate them, and one of a stranger could take for ever."""
    made = lora(tmp_path, LAYER, SHAPE, DRAW, told="config")
    config = {"r": 4, "lora_alpha": 4, "rank_pattern": {pattern: 8}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert "regular expression" in refused(made.path, tiny)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"transformer.r": 4}', '{"transformer.r": "4"}'])
def test_a_header_with_another_configuration_is_refused(text: str, tmp_path: Path, tiny: nn.Module) -> None:
    name = NAMES["diffusers"](LAYER)
    arrays = {f"{name}.lora_A.weight": numbers(DRAW, 4, 64), f"{name}.lora_B.weight": numbers(DRAW, 64, 4)}
    file = write(tmp_path / "x.safetensors", arrays, {"lora_adapter_metadata": text})
    assert str(file) in refused(file, tiny)


def test_a_file_that_is_no_adapter_is_refused_before_torch_is_imported(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    script = (
        "import sys; from acestep.cli.console import run_click; from acestep.cli.main import cli;"
        "code = run_click(cli); print(' '.join(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done, _ = counted(script, ["generate", "--caption", "x", "--model", "tiny", "--lora", str(file)], {"PATH": ""})
    said, _, modules = done.stderr.rstrip().rpartition("\n")
    assert (done.returncode, "cut short" in said) == (Exit.INVALID, True)
    assert not {"torch", "safetensors"} & set(modules.split())
