"""The knobs that a probe can change: the ladder from comfortable to frugal, and the configs a tier is tested in."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from acestep.knobs import Backend, Knobs, Offload, Variant
from calibrate.table.policy import Policy


class Config(StrEnum):
    """The ways a tier is run by `tier-test`, in the order they are tried."""

    DEFAULT = "default"
    NO_QUANT = "no-quant"
    NO_OFFLOAD = "no-offload"


def ladder(policy: Policy, variant: Variant) -> tuple[Knobs, ...]:
    """The knobs to try for a variant, least aggressive first."""
    return tuple(Knobs(variant=variant, offload=r.offload, quantization=r.quantization) for r in policy.preference)


def eager(knobs: Knobs) -> Knobs:
    """Return the same knobs as a simulated card runs them: it has no compiler."""
    return msgspec.structs.replace(knobs, compile=False)


def without_lm(knobs: Knobs) -> Knobs:
    """Return the same knobs for a run that does not think; knobs of the language model have one fixed value."""
    return msgspec.structs.replace(knobs, lm=None, lm_quantization=None, backend=Backend.PT)


def configured(default: Knobs, config: Config) -> Knobs:
    """Return a tier's default knobs with INT8 switched off, or INT8 and offload both."""
    if config is Config.DEFAULT:
        return default
    exact = msgspec.structs.replace(default, quantization=None, lm_quantization=None)
    return exact if config is Config.NO_QUANT else msgspec.structs.replace(exact, offload=Offload.NONE)


def configs_of(default: Knobs) -> dict[Knobs, tuple[Config, ...]]:
    """Return every config of a tier by its knobs: equal ones share one entry and need one probe."""
    found: dict[Knobs, tuple[Config, ...]] = {}
    for config in Config:
        knobs = configured(default, config)
        found[knobs] = (*found.get(knobs, ()), config)
    return found


def preferred(reach: Mapping[Knobs, int]) -> Knobs:
    """Return the first knobs of a ladder that reach as far as any of them; the last if none reaches anything."""
    furthest = max(reach.values())
    if furthest == 0:
        return list(reach)[-1]
    return next(knobs for knobs, seconds in reach.items() if seconds == furthest)


def first_from_which_all_fit(answers: Sequence[bool]) -> int:
    """Return the index of the smallest size from which on every size fits; past the end if the largest does not."""
    return max((number for number, fits in enumerate(answers, 1) if not fits), default=0)


def describe_knobs(knobs: Knobs) -> str:
    """Return the knobs that decide memory, as text for one progress line."""
    music = f"{knobs.variant}, offload {knobs.offload}, {knobs.quantization or 'unquantized'}"
    if knobs.lm is None:
        return music
    weights = "" if knobs.lm_quantization is None else f" in {knobs.lm_quantization}"
    return f"{music}, {knobs.lm}{weights} on {knobs.backend}"
