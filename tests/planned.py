"""Cards, wishes and plans that hypothesis draws, from the table of the fixtures."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from acestep.hardware.card import CPU, Card, CardKind
from acestep.knobs import LM_MODELS, Attention, Backend, Offload, Quantization, Variant
from acestep.limits.plan import Overrides, resolve
from acestep.tiers import load_tiers
from acestep.units import gib_to_bytes

TABLE = load_tiers(Path(__file__).parent / "fixtures" / "tiers.json")
TIERS = TABLE.variants[Variant.TURBO].tiers
OWN_MEMORY = (CardKind.CUDA, CardKind.ROCM, CardKind.XPU)


def card_of(kind: CardKind, size: float, capability: tuple[int, int]) -> Card:
    if kind is CardKind.CPU:
        return CPU
    if kind is not CardKind.CUDA:
        capability = (0, 0)
    return Card(kind=kind, name=f"some {kind}", total_bytes=gib_to_bytes(size), capability=capability)


cards = st.builds(
    card_of,
    st.sampled_from(CardKind),
    st.one_of(st.floats(0.5, 100), st.sampled_from([3.9, 4.4, 6.4, 7.4, 8.0, 15.5, 24.0])),
    st.sampled_from([(6, 1), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0)]),
)
knob_wishes: dict[str, st.SearchStrategy[Any]] = {
    "lm": st.sampled_from([None, *LM_MODELS, "9B"]),
    "lm_quantization": st.sampled_from([None, *Quantization]),
    "backend": st.sampled_from(Backend),
    "offload": st.sampled_from(Offload),
    "quantization": st.sampled_from([None, *Quantization]),
    "attention": st.sampled_from(Attention),
    "compile": st.booleans(),
}
wishes = st.fixed_dictionaries(
    {}, optional={**knob_wishes, "variant": st.sampled_from([Variant.TURBO, Variant.BASE])}
).map(lambda values: Overrides(**values))
packages = st.fixed_dictionaries({"torchao_available": st.booleans(), "flash_attn_available": st.booleans()})
plans = st.builds(
    lambda card, overrides, installed: resolve(card, TABLE, overrides, **installed), cards, wishes, packages
)
