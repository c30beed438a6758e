"""Models made in code: the published sizes, no memory before use, and noise that behaves like a model."""

import logging
import math

import psutil
import pytest
import torch

from acestep.checkpoints.build import build
from acestep.checkpoints.catalog import CHECKPOINTS, PARAMS_2B, PARAMS_XL, CheckpointKind
from acestep.checkpoints.components import Components
from acestep.checkpoints.convert import PREFIXES
from acestep.checkpoints.libraries import Qwen3RotaryEmbedding, quiet_imports
from acestep.checkpoints.noise import POOL_PAGES, mapped_noise, maps_noise
from acestep.knobs import Variant
from acestep.units import MIB
from tests.checkpoints import PARTS, tensors_of

DTYPES = (torch.float32, torch.bfloat16)


def params(components: Components, part: str) -> int:
    return sum(p.numel() for p in getattr(components, part).parameters())


@pytest.mark.parametrize(
    ("variant", "transformer", "in_file"),
    [(Variant.TURBO, 1_575_458_880, PARAMS_2B), (Variant.XL_SFT, 4_168_897_088, PARAMS_XL)],
)
def test_a_dummy_has_the_published_number_of_parameters(variant, transformer, in_file):
    dummy = build("dummy", variant, dtype=torch.bfloat16, materialise="meta")

    expected = {
        "transformer": transformer,
        "condition_encoder": 608_369_664,
        "audio_tokenizer": 105_032_198,
        "audio_token_detokenizer": 105_011_776,
        "vae": next(c.params for c in CHECKPOINTS if c.kind is CheckpointKind.VAE),
        "text_encoder": next(c.params for c in CHECKPOINTS if c.kind is CheckpointKind.TEXT_ENCODER),
    }
    assert {part: params(dummy, part) for part in PARTS} == expected
    assert sum(params(dummy, part) for part in PREFIXES) == in_file


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("variant", [Variant.TURBO, Variant.XL_TURBO])
def test_a_lazy_dummy_is_on_the_cpu_at_full_size_and_takes_no_memory(variant):
    build("tiny", variant, dtype=torch.bfloat16, materialise="lazy")
    before = resident_bytes()
    dummy = build("dummy", variant, dtype=torch.bfloat16, materialise="lazy")
    grown = resident_bytes() - before

    tensors = [t for part in PARTS for t in getattr(dummy, part).state_dict().values()]
    assert {(t.device.type, t.dtype) for t in tensors} == {("cpu", torch.bfloat16)}
    assert sum(t.nbytes for t in tensors) == 2 * (sum(params(dummy, part) for part in PARTS) + 15_000 * 64)
    assert grown < 64 * MIB


@pytest.mark.parametrize("materialise", ["random", "lazy"])
def test_arithmetic_buffers_are_computed_whatever_the_weights_are(materialise):
    tiny = build("tiny", dtype=torch.bfloat16, materialise=materialise)

    rotary = tiny.text_encoder.rotary_emb
    assert torch.equal(rotary.inv_freq, Qwen3RotaryEmbedding(tiny.text_encoder.config).inv_freq)
    quantizer = tiny.audio_tokenizer.quantizer
    assert quantizer._levels.tolist() == [8, 8, 8, 5, 5, 5]
    assert quantizer._basis.tolist() == [1, 8, 64, 512, 2560, 12800]
    assert quantizer.codebook_size == 64_000
    assert all(not tensor.is_meta for tensor in tensors_of(tiny).values())


@pytest.mark.parametrize("variant", [Variant.TURBO, Variant.XL_BASE])
def test_the_same_model_is_built_every_time_without_touching_the_global_generator(variant):
    state = torch.get_rng_state()
    first, second = (tensors_of(build("tiny", variant, dtype=torch.float32)) for _ in range(2))

    assert torch.equal(torch.get_rng_state(), state)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_narrower_type_rounds_the_same_values():
    wide, narrow = (tensors_of(build("tiny", dtype=dtype)) for dtype in DTYPES)
    assert all(torch.equal(wide[name].to(narrow[name].dtype), narrow[name]) for name in wide)


def test_no_two_weight_matrices_are_alike():
    matrices = [t for t in tensors_of(build("tiny", dtype=torch.float32)).values() if t.ndim > 1 and t.min() < t.max()]
    heads = {tuple(t.flatten()[:8].tolist()) for t in matrices}
    assert len(heads) == len(matrices)
    assert all(len({tuple(row.flatten()[:8].tolist()) for row in t}) == len(t) for t in matrices if t.ndim == 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", [Variant.TURBO, Variant.XL_BASE])
@torch.inference_mode()
def test_tiny_noise_is_finite_not_silent_and_answers_to_every_input(variant, dtype):
    tiny = build("tiny", variant, dtype=dtype)
    words = torch.tensor([tiny.tokenizer.encode("slow piano")])
    text = tiny.text_encoder(input_ids=words).last_hidden_state
    lyrics = tiny.text_encoder.embed_tokens(words)
    silence = tiny.condition_encoder.silence_latent[:, :50]
    present = torch.ones(words.shape, dtype=torch.long)
    condition, _ = tiny.condition_encoder(text, present, lyrics, present, silence, torch.zeros(1, dtype=torch.long))
    context = torch.cat([silence, torch.ones_like(silence)], dim=-1)
    noise = torch.randn(silence.shape, generator=torch.Generator().manual_seed(0)).to(dtype)

    def velocity(noise: torch.Tensor, condition: torch.Tensor, t: float) -> torch.Tensor:
        time = torch.full((1,), t, dtype=dtype)
        return tiny.transformer(noise, time, time, condition, context).sample

    plain = velocity(noise, condition, 0.9)
    assert plain.shape == noise.shape
    assert 0.05 < plain.float().std() < 20
    for other in (velocity(-noise, condition, 0.9), velocity(noise, -condition, 0.9), velocity(noise, condition, 0.3)):
        assert (other - plain).abs().max() > 0.01

    audio = tiny.vae.decode(plain.transpose(1, 2)).sample.float()
    assert audio.shape == (1, 2, 50 * 1920)
    assert audio.isfinite().all()
    assert 0.01 < audio.std() < 20
    assert not torch.equal(audio[0, 0], audio[0, 1])

    quantized, codes = tiny.audio_tokenizer.tokenize(silence)
    assert 0 <= int(codes.min()) <= int(codes.max()) < 64_000
    assert tiny.audio_token_detokenizer(quantized).shape == silence.shape


@pytest.mark.parametrize("variant", Variant)
def test_tiny_models_have_the_make_of_the_real_ones(variant):
    config = build("tiny", variant, dtype=torch.float32, materialise="meta").transformer.config

    assert config.is_turbo is variant.is_turbo
    assert (config.encoder_hidden_size < config.hidden_size) is variant.is_xl
    assert (config.num_attention_heads * config.head_dim > config.hidden_size) is variant.is_xl
    assert config.num_attention_heads > config.num_key_value_heads
    assert config.sliding_window == 128


def test_a_tiny_vae_has_the_real_time_scale():
    config = build("tiny", dtype=torch.float32, materialise="meta").vae.config
    assert (math.prod(config.downsampling_ratios), config.sampling_rate, config.audio_channels) == (1920, 48_000, 2)


def test_building_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    build("tiny", dtype=torch.float32)
    assert capfd.readouterr() == ("", "")


def test_only_known_messages_of_libraries_are_dropped_and_only_during_their_import(
    caplog: pytest.LogCaptureFixture,
) -> None:
    torchao = logging.getLogger("torchao")
    with quiet_imports():
        torchao.warning("Failed to load %s", "an extension")
        torchao.warning("a real problem")
    torchao.warning("Failed to load %s", "something later")
    assert caplog.messages == ["a real problem", "Failed to load something later"]


@pytest.mark.skipif(not maps_noise(), reason="this system cannot show one page at many addresses")
def test_a_random_dummy_takes_no_memory_until_it_is_written():
    build("tiny", dtype=torch.bfloat16)
    before = resident_bytes()
    dummy = build("dummy", dtype=torch.bfloat16)
    assert resident_bytes() - before < 256 * MIB

    weight = max(dummy.transformer.parameters(), key=torch.Tensor.numel)
    values = weight[:64].float()
    assert values.isfinite().all()
    assert values.std() * weight.shape[1] ** 0.5 == pytest.approx(1, rel=0.05)
    assert not torch.equal(values[0], values[1])


@pytest.mark.skipif(not maps_noise(), reason="this system cannot show one page at many addresses")
def test_mapped_noise_is_the_same_every_time_and_what_one_tensor_gets_no_other_sees():
    shape = torch.Size((3, POOL_PAGES * 4096))
    first, second = (mapped_noise(shape, torch.bfloat16, 0.5, start=7) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, mapped_noise(shape, torch.bfloat16, 0.5, start=8))
    assert first.float().std() == pytest.approx(0.5, rel=0.01)
    first.zero_()
    assert float(second.abs().max()) > 0
    assert torch.equal(second, mapped_noise(shape, torch.bfloat16, 0.5, start=7))
