"""The knobs that a probe can change: the ladder from comfortable to frugal, and the configs a tier is tested in."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from acestep.knobs import KNOBS, Knobs, Offload, Variant
from calibrate.table.policy import Policy


class Config(StrEnum):
    """The ways a tier is run by `tier-test`, in the order they are tried."""

    DEFAULT = "default"
    NO_QUANT = "no-quant"
    NO_OFFLOAD = "no-offload"


def ladder(policy: Policy, variant: Variant) -> tuple[Knobs, ...]:
    """The knobs to try for a variant, least aggressive first."""
    saving = [name for name, knob in KNOBS.items() if knob.saves and not knob.of_lm]
    return tuple(Knobs(variant=variant, **{name: getattr(rung, name) for name in saving}) for rung in policy.preference)


def eager(knobs: Knobs) -> Knobs:
    """Return the same knobs as a simulated card runs them: it has no compiler."""
    return msgspec.structs.replace(knobs, compile=False)


def without_lm(knobs: Knobs) -> Knobs:
    """The same knobs for a run that does not think; what only a language model looks at has one value."""
    return msgspec.structs.replace(knobs, **{name: knob.default for name, knob in KNOBS.items() if knob.of_lm})


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
    """The knobs in one phrase, those of the language model only where there is one."""
    said = {name: knob.describe(getattr(knobs, name)) for name, knob in KNOBS.items()}
    music = [said[name] for name, knob in KNOBS.items() if not knob.of_lm]
    planning = [said[name] for name, knob in KNOBS.items() if knob.of_lm] if knobs.lm is not None else []
    return ", ".join(filter(None, (*music, " ".join(filter(None, planning)))))
