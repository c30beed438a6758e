"""A folder of weights from a stranger is refused with a sentence, or makes what it should; its code never runs.

Each kind of wrong value is put into each field and each file of each kind of folder: nothing but a loaded model or an
`InvalidInputError` may come of it, within seconds, without the network.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from acestep.checkpoints.configs import architecture_in, qwen_architecture_in, vae_architecture_in
from acestep.checkpoints.lm import load_lm
from acestep.checkpoints.load import load
from acestep.devices.cpu import CpuDevice
from acestep.errors import Exit, InvalidInputError
from acestep.knobs import Backend, Knobs, Variant
from acestep.lm.language import Language
from acestep.lm.tokenizer import COMPACT
from tests import tiny_checkpoints
from tests.checkpoints import write_diffusers
from tests.planner_tokenizers import trained_backend
from tests.some import first_of
from tests.spoiled_tokenizers import ONLY_OF_A_TEXT_ENCODER, SPOILED_TOKENIZERS, changed_by
from tests.tiny_planner import write_planner

no_network, tiny = tiny_checkpoints.no_network, tiny_checkpoints.tiny

SECONDS = 10
HUB_CODE = "a-stranger/kernels:evil"
WRONG: dict[str, Any] = {
    "missing": None,
    "text": HUB_CODE,
    "huge": 10**7,
    "beyond any integer": 10**30,
    "beyond any float": 1e308,
    "negative": -1,
    "nothing": 0,
    "a fraction": 1.5,
    "odd": 7,
    "a switch": True,
    "a list": [64, 2],
    "an empty list": [],
    "a long list": [1] * 20_000,
    "nested": {"rope_type": "yarn", "factor": [{"a": {}}]},
    "half a character": "\ud800",
}
USUAL = ("missing", "negative")
"""The kinds that are tried in every run; the others belong to the soak tests."""

FOREIGN = {
    "_attn_implementation": HUB_CODE,
    "dtype": "float4_of_mine",
    "hidden_act": "evil.act",
    "rope_scaling": {"rope_type": "yarn", "factor": 8.0},
    "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6},
    "use_sliding_window": True,
    "attention_bias": True,
    "layer_types": ["linear_attention"],
    "num_hidden_layers": 10_000_000,
    "rms_norm_eps": -1.0,
    "rope_theta": 0.0,
    "num_key_value_heads": 3,
    "head_dim": 15,
}
"""What a Qwen3 of ours never has."""

SHAPES_NOTHING = (
    *("_class_name", "_diffusers_version", "transformers_version", "architectures", "output_hidden_states"),
    *("return_dict", "chunk_size_feed_forward", "is_encoder_decoder", "id2label", "label2id", "problem_type"),
    *("initializer_range", "use_cache", "max_window_layers", "pad_token_id", "bos_token_id"),
    *("eos_token_id", "_name_or_path", "output_attentions"),
)
"""What the libraries write beside the sizes; nothing of it is read, except in a DiT."""


@pytest.fixture(scope="module")
def folders(tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model with a folder for each part, and a language model."""
    root = tmp_path_factory.mktemp("strangers")
    language = write_planner(root / "lm", vocabulary=COMPACT.size)
    trained_backend().save(str(language / "tokenizer.json"))
    return {"music": write_diffusers(tiny[Variant.TURBO], root / "music"), "lm": language}


@pytest.fixture
def spoiled(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copy a folder that the test may spoil: its weights are links, because no test changes them."""

    def copy(which: str) -> Path:
        place = tmp_path / which
        if not place.exists():
            shutil.copytree(folders[which], place, copy_function=lambda file, to: link_or_copy(Path(file), Path(to)))
        return place

    return copy


def link_or_copy(file: Path, to: Path) -> None:
    if file.suffix == ".safetensors":
        to.symlink_to(file)
    else:
        shutil.copy(file, to)


PARTS = {"transformer": "music", "vae": "music", "condition_encoder": "music", "text_encoder": "music", "lm": "lm"}


def part_of(folder: Path, part: str) -> Path:
    return folder if part == "lm" else folder / part


def tokenizer_of(folder: Path, part: str) -> Path:
    return folder if part == "lm" else folder / "tokenizer"


def read(part: str, folder: Path) -> object:
    if part == "lm":
        return Language(str(folder), Knobs(lm="0.6B", backend=Backend.PT), CpuDevice(), longest_s=1, warn=pytest.fail)
    return load(str(folder), dtype=torch.float32)


def refusal(part: str, folder: Path, look: Callable[[str, Path], object] | None = None) -> InvalidInputError | None:
    """The sentence with which a folder is refused; None if it is read. Anything else fails the test."""
    began = time.monotonic()
    found = None
    try:
        (look or read)(part, folder)
    except InvalidInputError as error:
        found = error
    assert time.monotonic() - began < SECONDS
    if found is not None:
        assert found.exit is Exit.INVALID
        assert len(str(found)) < 1_000
    return found


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No module is imported from the folders: the paths that Python imports from stay, and no hub is asked."""
    before = set(sys.modules)
    yield
    assert not [
        name for name in set(sys.modules) - before if "stranger" in name or name.startswith("transformers_modules")
    ]


@pytest.mark.parametrize("part", PARTS)
def test_an_unchanged_folder_is_read(part: str, spoiled: Callable[[str], Path]) -> None:
    assert refusal(part, spoiled(PARTS[part])) is None


@pytest.mark.parametrize(
    "wrong", [pytest.param(kind, marks=() if kind in USUAL else pytest.mark.soak) for kind in WRONG]
)
@pytest.mark.parametrize("part", PARTS)
def test_every_field_with_this_wrong_value_is_refused_or_ignored(
    part: str, wrong: str, spoiled: Callable[[str], Path]
) -> None:
    folder = spoiled(PARTS[part])
    file = part_of(folder, part) / "config.json"
    fields = json.loads(file.read_text())

    def refused_with(names: list[str], look: Callable[[str, Path], object]) -> InvalidInputError | None:
        changed = {name: value for name, value in fields.items() if name not in names}
        if wrong != "missing":
            changed |= dict.fromkeys(names, WRONG[wrong])
        file.write_text(json.dumps(changed))
        return refusal(part, folder, look)

    understood = [name for name in fields if name not in SHAPES_NOTHING]
    # Reading the configuration comes first in loading; only what passes there needs the weights, and all at once first.
    accepted = [name for name in understood if refused_with([name], look_at_configuration) is None]
    for names in ([name for name in fields if name in SHAPES_NOTHING], accepted):
        if refused_with(names, read_weights) is not None:
            for name in names:
                refused_with([name], read_weights)


def read_weights(part: str, folder: Path) -> object:
    return load_lm(str(folder), dtype=torch.float32) if part == "lm" else read(part, folder)


def look_at_configuration(part: str, folder: Path) -> None:
    if part in ("lm", "text_encoder"):
        qwen_architecture_in(part_of(folder, part))
    else:
        vae_architecture_in(folder / "vae", architecture_in(folder))


@pytest.mark.parametrize("field", FOREIGN)
@pytest.mark.parametrize("part", first_of(["text_encoder", "lm"], 1))
def test_a_model_that_is_not_ours_is_refused(part: str, field: str, spoiled: Callable[[str], Path]) -> None:
    folder = spoiled(PARTS[part])
    file = part_of(folder, part) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: FOREIGN[field]}))
    refused = refusal(part, folder)
    assert refused is not None
    assert field in str(refused) or "heads" in str(refused) or "layers" in str(refused)


@pytest.mark.parametrize("part", ["text_encoder", "lm"])
def test_fields_that_shape_nothing_are_ignored(part: str, spoiled: Callable[[str], Path]) -> None:
    folder = spoiled(PARTS[part])
    file = part_of(folder, part) / "config.json"
    ignored = {"auto_map": {"AutoModel": f"{HUB_CODE}--evil.Evil"}, "architectures": ["Evil"], "use_cache": "no"}
    file.write_text(json.dumps(json.loads(file.read_text()) | ignored))
    assert refusal(part, folder) is None


OFTEN_OF_AN_LM = ("none", "garbage", "ids beyond the embedding", "a byte without a token", "tokens chosen by chance")
TOKENIZERS = [
    *(("text_encoder", what) for what in SPOILED_TOKENIZERS | ONLY_OF_A_TEXT_ENCODER),
    # The same code reads both; a language model's vocabulary is large, so the soak tests try the rest of it.
    *(
        pytest.param("lm", what, marks=() if what in OFTEN_OF_AN_LM else pytest.mark.soak)
        for what in SPOILED_TOKENIZERS
    ),
]


@pytest.mark.parametrize(("part", "what"), TOKENIZERS)
def test_a_tokenizer_that_would_lose_words_is_refused(part: str, what: str, spoiled: Callable[[str], Path]) -> None:
    folder = spoiled(PARTS[part])
    (SPOILED_TOKENIZERS | ONLY_OF_A_TEXT_ENCODER)[what](tokenizer_of(folder, part))
    refused = refusal(part, folder)
    assert refused is not None
    assert "token" in str(refused)


def test_a_file_that_asks_for_padding_changes_no_text(spoiled: Callable[[str], Path]) -> None:
    folder = spoiled("music")
    before = load(str(folder), dtype=torch.float32).tokenizer.encode("la la", 256)
    changed_by(
        padding={
            "strategy": {"Fixed": 4_000},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 3,
            "pad_type_id": 0,
            "pad_token": "x",
        },
        truncation={"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
    )(folder / "tokenizer")
    assert load(str(folder), dtype=torch.float32).tokenizer.encode("la la", 256) == before


INDICES: dict[str, Any] = {
    "a name of 5,000 characters": {"weight_map": {"a": "x" * 5_000}},
    "a name with a zero byte": {"weight_map": {"a": "x\0y.safetensors"}},
    "a folder": {"weight_map": {"a": "."}},
    "the folder above": {"weight_map": {"a": ".."}},
    "no name": {"weight_map": {"a": ""}},
    "half a character": {"weight_map": {"a": "\ud800.safetensors"}},
    "the configuration": {"weight_map": {"a": "config.json"}},
    "numbers": {"weight_map": {"a": 5}},
    "a list": {"weight_map": ["a"]},
    "nothing": {"weight_map": {}},
    "a million names": {"weight_map": {f"tensor.{n}": f"{n}.safetensors" for n in range(200_000)}},
    "no map": {},
}


OFTEN = ("a folder", "numbers", "nothing")


@pytest.mark.parametrize(
    ("part", "what"),
    [
        # One function reads the index of every part.
        pytest.param(part, what, marks=() if part == "transformer" or what in OFTEN else pytest.mark.soak)
        for part in PARTS
        for what in INDICES
    ],
)
def test_an_index_that_names_no_weights_is_refused(part: str, what: str, spoiled: Callable[[str], Path]) -> None:
    folder = spoiled(PARTS[part])
    (weights,) = part_of(folder, part).glob("*.safetensors")
    (part_of(folder, part) / f"{weights.name}.index.json").write_text(json.dumps(INDICES[what]))
    assert refusal(part, folder, read_weights) is not None
