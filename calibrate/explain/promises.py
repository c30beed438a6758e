"""What a cell promises, in one sentence."""

from collections.abc import Callable
from typing import Any

from acestep.tiers import Tier, VariantTable

_Say = Callable[[Tier, str, Any], str]
"""Called with a row, the rest of the path and the value."""


def promise_of(cell: str, tier: Tier, table: VariantTable, value: Any) -> str:
    """The sentence for a cell of a row, such as `frontier.with_lm.4`."""
    field, _, rest = cell.partition(".")
    if field == "evidence":
        return f"How the numbers of {rest} were found, and the digest of their record."
    if field == "boundaries":
        return _boundary(rest, table)
    return _SAID[field](tier, rest, value)


def _boundary(name: str, table: VariantTable) -> str:
    found = table.boundaries.named[name]
    what = {
        "without_int8": "The tier's limits without a language model hold without INT8",
        "without_offload": "The tier's limits without a language model hold with every model on the card",
    }.get(name, f"The language model {name.removeprefix('lm.')} fits beside the tier's own knobs")
    if not found.fits_gib:
        return f"{what} on no size that was tried."
    below = f"; on {found.fails_gib} GiB not" if found.fails_gib else ", the smallest size that was tried"
    return f"{what} from {found.fits_gib} GiB ({found.tier}) on{below}."


def _songs(count: int, seconds: int, state: str) -> str:
    planned = "planned by a language model" if state == "with_lm" else "without a language model"
    if not seconds:
        return f"No {'song' if count == 1 else f'batch of {count} songs'} is promised {planned}."
    return f"{'One song' if count == 1 else f'{count} songs at once'}, up to {seconds} s long, {planned}."


def _batch(tier: Tier, state: str, value: int) -> str:
    return _songs(value or 1, tier.max_duration_s.of(lm=state == "with_lm"), state)


def _frontier(_: Tier, rest: str, value: int) -> str:
    state, batch = rest.split(".")
    return _songs(int(batch), value, state)


def _models(_: Tier, __: str, value: list[str]) -> str:
    return f"Language models that are offered: {', '.join(value)}." if value else "No language model is offered."


def _per_pass(_: Tier, model: str, value: Any) -> str:
    if not model:
        return "No language model is offered, so none plans songs."
    return f"{model} plans {value} of the songs of the largest batch at once, and the others after them."


def _needs(_: Tier, model: str, value: Any) -> str:
    if not model:
        return "No language model needs other knobs than the tier's own."
    weights = ", ".join(f"{name} {value[name] or 'none'}" for name in ("offload", "quantization", "lm_quantization"))
    return f"{model} fits with {weights}, on {' and '.join(value['backends'])}."


_SAID: dict[str, _Say] = {
    "id": lambda *_: "The name of the tier.",
    "label": lambda *_: "How the tier is named where people read it.",
    "vram_gib": lambda *_: "The sizes of the cards that this tier is for, by the size on the box.",
    "certified_gib": lambda *_: "The size of card that the tier's limits are proven at.",
    "lm_models": _models,
    "recommended_lm": lambda _, __, value: f"The language model used by default: {value or 'none'}.",
    "backend": lambda _, __, value: f"What runs the language model by default: {value}.",
    "backends_allowed": lambda *_: "What may run the language model on these cards.",
    "max_duration_s": lambda _, state, value: _songs(1, value, state),
    "max_batch": _batch,
    "offload": lambda _, __, value: f"What leaves the card while unused: {value}.",
    "quantization": lambda _, __, value: f"Weights of the transformer: {value or 'not quantized'}.",
    "lm_quantization": lambda _, __, value: f"Weights of the language model: {value or 'not quantized'}.",
    "compile": lambda _, __, value: f"The transformer is {'' if value else 'not '}compiled by default.",
    "init_lm": lambda _, __, value: f"The language model is {'' if value else 'not '}loaded by default.",
    "lm_songs_per_pass": _per_pass,
    "lm_needs": _needs,
    "frontier": _frontier,
}
