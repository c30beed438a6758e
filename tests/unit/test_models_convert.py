"""The two checkpoint layouts hold the same tensors under other names; the mapping loses and invents nothing."""

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acestep.checkpoints.architecture import Architecture
from acestep.checkpoints.build import build
from acestep.checkpoints.catalog import architecture_of
from acestep.checkpoints.convert import PREFIXES, SILENCE_KEY, original_config, original_key, part_configs
from acestep.knobs import Variant


def as_published(original: str) -> tuple[str, str]:
    """Original key -> (part, diffusers key), as the library's conversion script words it."""
    if original == "null_condition_emb":
        return "condition_encoder", original
    part, prefix = max(
        ((part, prefix) for part, prefix in PREFIXES.items() if original.startswith(prefix)), key=lambda x: len(x[1])
    )
    key = original.removeprefix(prefix)
    for old, new in [
        (".q_proj.", ".to_q."),
        (".k_proj.", ".to_k."),
        (".v_proj.", ".to_v."),
        (".o_proj.", ".to_out.0."),
        (".q_norm.", ".norm_q."),
        (".k_norm.", ".norm_k."),
    ]:
        key = key.replace(old, new)
    if part == "transformer":
        key = key.replace("proj_in.1.", "proj_in_conv.").replace("proj_out.1.", "proj_out_conv.")
    return part, key


@pytest.mark.parametrize("variant", [Variant.TURBO, Variant.XL_BASE])
def test_every_tensor_but_the_silence_latent_has_one_original_name_that_maps_back(variant):
    components = build("tiny", variant, dtype=torch.float32, materialise="meta")
    keys = [(part, key) for part in PREFIXES for key in getattr(components, part).state_dict()]
    originals = {(part, key): original_key(part, key) for part, key in keys}

    assert [pair for pair, original in originals.items() if original is None] == [SILENCE_KEY]
    named = {pair: original for pair, original in originals.items() if original is not None}
    assert len(set(named.values())) == len(named)
    assert {pair: as_published(original) for pair, original in named.items()} == {pair: pair for pair in named}


@pytest.mark.parametrize(
    ("part", "key", "original"),
    [
        ("transformer", "proj_in_conv.weight", "decoder.proj_in.1.weight"),
        ("transformer", "proj_out_conv.bias", "decoder.proj_out.1.bias"),
        ("transformer", "layers.3.cross_attn.to_out.0.weight", "decoder.layers.3.cross_attn.o_proj.weight"),
        ("transformer", "layers.3.self_attn.norm_q.weight", "decoder.layers.3.self_attn.q_norm.weight"),
        ("condition_encoder", "null_condition_emb", "null_condition_emb"),
        ("condition_encoder", "timbre_encoder.special_token", "encoder.timbre_encoder.special_token"),
        ("audio_tokenizer", "quantizer.project_in.weight", "tokenizer.quantizer.project_in.weight"),
        ("audio_token_detokenizer", "proj_out.weight", "detokenizer.proj_out.weight"),
        ("condition_encoder", "silence_latent", None),
    ],
)
def test_known_names(part, key, original):
    assert original_key(part, key) == original


sizes = st.integers(1, 4096)
layers = st.integers(1, 40)


@st.composite
def architectures(draw) -> Architecture:
    depth = draw(layers)
    kinds = st.sampled_from(["sliding_attention", "full_attention"])
    shared = Architecture().num_key_value_heads
    heads = st.integers(1, 64).map(lambda groups: groups * shared)
    return Architecture(
        hidden_size=draw(sizes),
        intermediate_size=draw(sizes),
        num_hidden_layers=depth,
        num_attention_heads=draw(heads),
        encoder_hidden_size=draw(st.none() | sizes),
        encoder_intermediate_size=draw(st.none() | sizes),
        encoder_num_attention_heads=draw(st.none() | heads),
        rope_theta=draw(st.floats(1.0, 1e7)),
        sliding_window=draw(sizes),
        layer_types=draw(st.none() | st.lists(kinds, min_size=depth, max_size=depth).map(tuple)),
        num_attention_pooler_hidden_layers=draw(st.integers(1, depth)),
        fsq_input_levels=draw(st.lists(st.integers(2, 8), min_size=1, max_size=6).map(tuple)),
        is_turbo=draw(st.booleans()),
        model_version=draw(st.none() | st.sampled_from(["turbo", "base", "sft"])),
    )


@given(architectures())
def test_configurations_survive_the_way_there_and_back(architecture):
    configs = part_configs(architecture)
    back = msgspec.convert(original_config(configs), Architecture)

    assert part_configs(back) == configs
    assert (back.is_xl, back.encoder_width) == (architecture.is_xl, architecture.encoder_width)


@pytest.mark.parametrize("variant", Variant)
def test_the_two_kinds_of_attention_alternate_from_sliding(variant):
    kinds = part_configs(architecture_of(variant))["transformer"]["layer_types"]
    assert kinds[0::2] == ["sliding_attention"] * (len(kinds) // 2)
    assert kinds[1::2] == ["full_attention"] * (len(kinds) // 2)
