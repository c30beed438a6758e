"""The catalog names every checkpoint once, and every name people use finds it."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.checkpoints import catalog
from acestep.checkpoints.catalog import (
    CHECKPOINTS,
    CheckpointKind,
    architecture_of,
    checkpoint_of,
    find,
    no_such_model,
    variant_of,
)
from acestep.errors import Exit, UsageError
from acestep.knobs import Variant


def test_every_variant_and_no_other_short_name_resolves_to_a_dit():
    for variant in Variant:
        checkpoint = find(variant.value)
        assert checkpoint is not None
        assert (checkpoint.kind, checkpoint.variant) == (CheckpointKind.DIT, variant)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda c: c.id)
def test_id_short_name_and_own_repository_find_the_same_checkpoint(checkpoint):
    names = {checkpoint.id, checkpoint.id.upper(), checkpoint.short or checkpoint.id}
    names |= set() if checkpoint.subfolder else {checkpoint.repo}
    assert all(checkpoint_of(name) is checkpoint for name in names)


def test_no_two_checkpoints_share_a_name():
    names = [name for c in CHECKPOINTS for name in {c.id.lower(), (c.short or c.id).lower()}]
    assert len(names) == len(set(names))


@given(st.text())
def test_an_unknown_name_is_a_usage_error_that_lists_the_known_ones(name):
    if find(name) is not None:
        return
    with pytest.raises(UsageError, match=r"turbo.*0\.6B") as caught:
        checkpoint_of(name)
    assert caught.value.exit is Exit.USAGE


def test_who_asks_for_music_is_offered_only_what_makes_music():
    offered = re.search(r"choose one of (.*?), a folder, .* tiny or dummy$", no_such_model("nonsense"))
    assert offered is not None
    kinds = [checkpoint_of(name).kind for name in offered[1].split(", ")]
    assert kinds == [CheckpointKind.DIT] * sum(checkpoint.kind is CheckpointKind.DIT for checkpoint in CHECKPOINTS)


@pytest.mark.parametrize("variant", Variant)
def test_the_variant_is_read_back_from_its_own_architecture(variant):
    assert variant_of(architecture_of(variant), "a folder") is variant


@pytest.mark.parametrize("variant", Variant)
def test_without_a_version_the_name_decides_between_base_and_sft_only(variant):
    architecture = msgspec.structs.replace(architecture_of(variant), model_version=None)
    assert variant_of(architecture, f"acestep-v15-{variant}") is variant
    for other in Variant:
        named = variant_of(architecture, f"acestep-v15-{other}")
        assert (named.is_turbo, named.is_xl) == (variant.is_turbo, variant.is_xl)


def test_checkpoints_are_kept_where_the_variable_says_else_here(monkeypatch, tmp_path):
    monkeypatch.setenv(catalog.CHECKPOINTS_VARIABLE, str(tmp_path))
    assert catalog.checkpoints_dir() == tmp_path
    monkeypatch.setenv(catalog.CHECKPOINTS_VARIABLE, "")
    assert catalog.checkpoints_dir() == Path("checkpoints")


def test_naming_finding_and_downloading_a_model_need_no_torch():
    code = (
        "import sys, acestep.checkpoints.catalog, acestep.checkpoints.locate, acestep.checkpoints.download;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
