"""The numbers that the explorer computes with, as one JSON document: the table, the cards and the guard's constants."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from acestep.budgets import System
from acestep.checkpoints.catalog import architecture_of, lm_checkpoint
from acestep.clip import FRAMES_A_SECOND
from acestep.evidence import Evidence, short_digest
from acestep.hardware.card import SIMULATED_CAPABILITY, Card, CardKind
from acestep.hardware.card_chips import is_same_card
from acestep.hardware.card_sizes import RECORDED, SHORTFALL_HUNDREDTHS, SHORTFALL_SHARE
from acestep.knobs import LM_MODELS, WEIGHT_FORMATS, Offload, Variant
from acestep.limits import guard, think_memory, workspace
from acestep.limits.capabilities import (
    AMPERE,
    HOPPER,
    HOPPER_MATRIX_WORKSPACE,
    KINDS,
    MATRIX_WORKSPACE,
    TRITON_CAPABILITY,
)
from acestep.request import CODE_FRAMES, MAX_DURATION_S, MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS
from acestep.song_times import FASTEST, LENGTHS_S, SLOWEST, CardTimes
from acestep.thinking import LONGEST_PROMPT_TOKENS
from acestep.tiers import BATCHES, Tier, TierTable, VariantTable
from calibrate.report.real_cards import real_cards

_SHAPE: Final = (
    *("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "in_channels"),
    *("audio_acoustic_hidden_dim", "patch_size", "sliding_window", "is_turbo", "encoder_width"),
)
_LM_SHAPE: Final = ("vocab_size", "hidden_size", "num_hidden_layers", "num_key_value_heads", "head_dim")
_KIND: Final = ("named", "run", "own_memory", "quantizes", "compiles", "backends", "itemsize", "matrix_workspace")

_TIER: Final = (
    *("id", "label", "vram_gib", "certified_gib", "lm_models", "recommended_lm", "backend", "backends_allowed"),
    *("offload", "quantization", "lm_quantization", "compile", "init_lm", "lm_songs_per_pass", "frontier", "lm_needs"),
)
"""The fields of a tier that decide a plan."""


def numbers(table: TierTable) -> dict[str, Any]:
    """Return every number that `*.js` of this folder reads, by its name there."""
    return {
        "variants": {variant.value: _variant(found) for variant, found in table.variants.items()},
        "budgets": {
            system.value: [[one.nameplate_gib, one.n_bytes] for one in table.budgets if one.system is system]
            for system in System
        },
        "cards": [
            {
                "group": real.group,
                "label": real.label,
                "name": real.card.name,
                "kind": real.card.kind.value,
                "gib": real.card.nameplate_gib,
                "capability": real.card.capability,
                "unified": real.card.unified,
            }
            for real in real_cards()
        ],
        "kinds": {kind.value: _fields(traits, _KIND) for kind, traits in KINDS.items()},
        "architectures": {variant.value: _fields(architecture_of(variant), _SHAPE) for variant in Variant},
        "lms": {model: _lm(model) for model in LM_MODELS},
        "weight_formats": {
            name.value: _fields(weights, ("bits", "loss", "weight_only", "capability"))
            for name, weights in WEIGHT_FORMATS.items()
        },
        "offloads": [mode.value for mode in Offload],
        **_CONSTANTS,
    }


_CONSTANTS: Final[Mapping[str, Any]] = {
    "ampere": AMPERE,
    "hopper": HOPPER,
    "triton": TRITON_CAPABILITY,
    "simulated_capability": SIMULATED_CAPABILITY,
    "matrix_workspace": MATRIX_WORKSPACE,
    "hopper_matrix_workspace": HOPPER_MATRIX_WORKSPACE,
    "recorded": {str(size): box for size, box in RECORDED.items()},
    "shortfall_hundredths": SHORTFALL_HUNDREDTHS,
    "shortfall_share": SHORTFALL_SHARE,
    "batches": BATCHES,
    "frames_a_second": FRAMES_A_SECOND,
    "code_frames": CODE_FRAMES,
    "coefficient_itemsize": guard.ITEMSIZE,
    "small_limit": workspace.SMALL_LIMIT,
    "own_segment": workspace.OWN_SEGMENT,
    "large_segment": workspace.LARGE_SEGMENT,
    "segment_grain": workspace.SEGMENT_GRAIN,
    "float32": workspace.FLOAT32,
    "chunk_rows": workspace.CHUNK_ROWS,
    "block_rows": workspace.BLOCK_ROWS,
    "time_projections": workspace.TIME_PROJECTIONS,
    "time_frequencies": workspace.TIME_FREQUENCIES,
    "guided_velocities": workspace.GUIDED_VELOCITIES,
    "coefficients": guard.COEFFICIENTS,
    "coefficients_of_audio": guard.OF_AUDIO,
    "fewest_lyrics": guard.FEWEST_LYRICS,
    "think_beside": think_memory.THINK_BESIDE,
    "think_share_beside": think_memory.THINK_SHARE_BESIDE,
    "vllm_beside": think_memory.THINK_VLLM_BESIDE,
    "longest_prompt_tokens": LONGEST_PROMPT_TOKENS,
    "time_lengths": LENGTHS_S,
    "fastest": FASTEST,
    "slowest": SLOWEST,
    "max_duration_s": int(MAX_DURATION_S),
    "max_lyric_tokens": MAX_LYRIC_TOKENS,
    "max_text_tokens": MAX_TEXT_TOKENS,
}


def _variant(found: VariantTable) -> dict[str, Any]:
    return {
        "tiers": [_tier(tier) for tier in found.tiers],
        "windows": [_tier(tier) for tier in found.windows],
        "memory_model": found.memory_model,
        "times": {tier: [_card_times(card) for card in times.cards] for tier, times in found.times.items()},
    }


def _card_times(card: CardTimes) -> dict[str, Any]:
    return {
        "cards": [real.label for real in real_cards() if _is_timed(real.card, card)],
        "stages": list(card.stages.values()),
        **_fields(card, ("offload", "quantization", "thinking")),
    }


def _is_timed(card: Card, times: CardTimes) -> bool:
    return card.kind is CardKind.CUDA and is_same_card(times.card, times.vram_gib, card.name, card.nameplate_gib)


def _tier(tier: Tier) -> dict[str, Any]:
    states = {"evidence": "frontier", "evidence_with_lm": "frontier.with_lm"}
    return _fields(tier, _TIER) | {name: _source(tier.evidence_for(field)) for name, field in states.items()}


def _source(evidence: Evidence | None) -> str:
    return "no evidence recorded" if evidence is None else f"{evidence.kind} {short_digest(evidence.record)}".strip()


def _lm(model: str) -> dict[str, Any]:
    checkpoint = lm_checkpoint(model)
    return _fields(checkpoint.shape, _LM_SHAPE) | {"params": checkpoint.params}


def _fields(value: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: msgspec.to_builtins(getattr(value, name)) for name in names}
