"""Every checkpoint by name: where it lives, how it is laid out and how large it is."""

import os
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from acestep.checkpoints.architecture import Architecture, QwenArchitecture
from acestep.errors import UsageError
from acestep.knobs import Variant

MAIN_REPO = "ACE-Step/Ace-Step1.5"
"""Holds the turbo transformer, the VAE, the text encoder and the 1.7B language model as sub-folders."""

CHECKPOINTS_VARIABLE = "ACESTEP_CHECKPOINTS_DIR"

Size = Literal["tiny", "dummy"]
SIZES: dict[str, Size] = {"tiny": "tiny", "dummy": "dummy"}
"""The names of models that are made in code instead of read from disk."""

TINY = "tiny"
"""The language model of toy size that is made in code."""

DUMMY_PREFIX = "dummy:"
"""Prefix of a language model's name: a model of that size with random weights."""


class CheckpointKind(StrEnum):
    """What a checkpoint is for."""

    DIT = "dit"
    LM = "lm"
    VAE = "vae"
    TEXT_ENCODER = "text-encoder"


class Layout(StrEnum):
    """How a checkpoint's files are arranged: one file for the DiT's four parts, or a folder for each part."""

    ORIGINAL = "original"
    DIFFUSERS = "diffusers"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One downloadable checkpoint.

    `id` is also its folder below the checkpoints directory; `subfolder` its place in `repo`, "" for the top.
    `params` counts every parameter in the files, 0 where it is not known; `shape` is that of a language model.
    """

    id: str
    kind: CheckpointKind
    repo: str
    subfolder: str = ""
    layout: Layout = Layout.ORIGINAL
    params: int = 0
    variant: Variant | None = None
    short: str | None = None
    shape: QwenArchitecture | None = None

    @property
    def called(self) -> str:
        """The short name, or the id of a checkpoint without one."""
        return self.short or self.id


PARAMS_2B = 2_393_872_518
PARAMS_XL = 4_987_310_726


def _dit(
    name: str, variant: Variant, *, short: str | None = None, repo: str | None = None, layout: Layout = Layout.ORIGINAL
) -> Checkpoint:
    return Checkpoint(
        id=name,
        kind=CheckpointKind.DIT,
        repo=repo or f"ACE-Step/{name}",
        subfolder=name if repo else "",
        layout=layout,
        params=PARAMS_XL if variant.is_xl else PARAMS_2B,
        variant=variant,
        short=short,
    )


def _lm(size: str, params: int, shape: QwenArchitecture, *, repo: str | None = None) -> Checkpoint:
    name = f"acestep-5Hz-lm-{size}"
    return Checkpoint(
        id=name,
        kind=CheckpointKind.LM,
        repo=repo or f"ACE-Step/{name}",
        subfolder=name if repo else "",
        params=params,
        short=size,
        shape=shape,
    )


def _planner(**sizes: int) -> QwenArchitecture:
    return QwenArchitecture(vocab_size=217_204, max_position_embeddings=40_960, **sizes)


CHECKPOINTS = (
    _dit("acestep-v15-turbo", Variant.TURBO, short="turbo", repo=MAIN_REPO),
    _dit("acestep-v15-base", Variant.BASE, short="base"),
    _dit("acestep-v15-sft", Variant.SFT, short="sft"),
    _dit("acestep-v15-xl-turbo", Variant.XL_TURBO, short="xl-turbo"),
    _dit("acestep-v15-xl-base", Variant.XL_BASE, short="xl-base"),
    _dit("acestep-v15-xl-sft", Variant.XL_SFT, short="xl-sft"),
    _dit("acestep-v15-turbo-shift1", Variant.TURBO),
    _dit("acestep-v15-turbo-shift3", Variant.TURBO),
    _dit("acestep-v15-turbo-continuous", Variant.TURBO),
    _dit("acestep-v15-xl-turbo-diffusers", Variant.XL_TURBO, layout=Layout.DIFFUSERS),
    _lm("0.6B", 662_884_352, _planner()),
    _lm("1.7B", 1_854_243_840, _planner(hidden_size=2048, intermediate_size=6144), repo=MAIN_REPO),
    _lm(
        "4B",
        4_189_554_176,
        _planner(hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32),
    ),
    Checkpoint(
        id="vae", kind=CheckpointKind.VAE, repo=MAIN_REPO, subfolder="vae", layout=Layout.DIFFUSERS, params=168_695_426
    ),
    Checkpoint(
        id="Qwen3-Embedding-0.6B",
        kind=CheckpointKind.TEXT_ENCODER,
        repo=MAIN_REPO,
        subfolder="Qwen3-Embedding-0.6B",
        layout=Layout.DIFFUSERS,
        params=595_776_512,
        short="text-encoder",
    ),
)

LM_ARCHITECTURES = {found.id: found.shape for found in CHECKPOINTS if found.shape is not None}
"""Shapes of the planner language models, for probes without files; a real one's `config.json` decides for it."""


@cache
def architecture_of(variant: Variant) -> Architecture:
    """The full-size architecture of `variant`, as in its published `config.json`."""
    version = variant.value.removeprefix("xl-")
    if not variant.is_xl:
        return Architecture(is_turbo=variant.is_turbo, model_version=version)
    return Architecture(
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        encoder_hidden_size=2048,
        encoder_intermediate_size=6144,
        encoder_num_attention_heads=16,
        encoder_num_key_value_heads=8,
        is_turbo=variant.is_turbo,
        model_version=version,
    )


def variant_of(architecture: Architecture, name: str) -> Variant:
    """The variant a checkpoint is, from its configuration; `name` tells base and sft apart where that does not."""
    version = (architecture.model_version or "").lower()
    turbo = architecture.is_turbo or version == "turbo"
    known = checkpoint.variant if (checkpoint := find(name)) else None
    if known is not None and (known.is_turbo, known.is_xl) == (turbo, architecture.is_xl):
        return known
    kind = "turbo" if turbo else "sft" if "sft" in (version or name.lower()) else "base"
    return Variant(f"xl-{kind}" if architecture.is_xl else kind)


def is_named(model: str) -> bool:
    """Return whether a model has a name that is the same everywhere: published, or with random weights."""
    return model in SIZES or find(model) is not None


def find(name: str) -> Checkpoint | None:
    """The checkpoint called `name`: its id, short name or the repository it has to itself; None if there is none."""
    wanted = name.strip().lower()
    for checkpoint in CHECKPOINTS:
        names = {checkpoint.id, checkpoint.called} | (set() if checkpoint.subfolder else {checkpoint.repo})
        if wanted and wanted in {n.lower() for n in names}:
            return checkpoint
    return None


def checkpoint_of(name: str) -> Checkpoint:
    """The checkpoint called `name`; raises `UsageError` listing the known names."""
    checkpoint = find(name)
    if checkpoint is None:
        known = ", ".join(checkpoint.called for checkpoint in CHECKPOINTS)
        raise UsageError(f"there is no checkpoint called {name!r}; choose one of {known}")
    return checkpoint


def lm_checkpoint(name: str) -> Checkpoint:
    """The language model called `name`; raises `UsageError` listing what a language model can be called."""
    checkpoint = find(name)
    if checkpoint is None or checkpoint.kind is not CheckpointKind.LM:
        known = ", ".join(checkpoint.called for checkpoint in CHECKPOINTS if checkpoint.kind is CheckpointKind.LM)
        raise UsageError(
            f"there is no language model called {name!r}; choose one of {known}, a folder, or for trying things out"
            " tiny or dummy:0.6B"
        )
    return checkpoint


def no_such_model(name: str) -> str:
    """The error text for a model name that is in no catalog."""
    known = ", ".join(checkpoint.called for checkpoint in CHECKPOINTS if checkpoint.kind is CheckpointKind.DIT)
    return (
        f"there is no model called {name!r} that makes music; choose one of {known}, a folder, or for trying things out"
        " tiny or dummy"
    )


def checkpoints_dir() -> Path:
    """Where checkpoints are kept: the folder named by ACESTEP_CHECKPOINTS_DIR, else `checkpoints` here."""
    return Path(os.environ.get(CHECKPOINTS_VARIABLE) or "checkpoints").expanduser()
