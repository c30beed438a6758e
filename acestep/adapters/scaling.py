"""How strongly an adapter changes its layers: the configurations of PEFT and of diffusers."""

import re
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Annotated, Any

import msgspec

from acestep.adapters.names import without_prefix
from acestep.checkpoints.configs import read_config
from acestep.errors import InvalidInputError

DIFFUSERS_FIELD = "lora_adapter_metadata"
"""The text in the header of a safetensors file in which diffusers keeps PEFT's configuration."""

_KINDS = ("LORA", "LOKR")

_OF_OTHER_KINDS = (
    *("alora_invocation_tokens", "arrow_config", "fan_in_fan_out", "kasa_config", "layer_replication"),
    *("monteclora_config", "use_bdlora", "use_qalora"),
)
"""Fields of PEFT's `LoraConfig` with which a model computes more than with a matrix added to each weight."""

_NAME = re.compile(r"\^?\w+(\.\w+)*")
"""A pattern that is the name of layers or its end."""

_Rank = Annotated[int, msgspec.Meta(ge=1, le=2**20)]


class PeftConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of PEFT's configuration that decide the scale; LoKr has `alpha`, LoRA `lora_alpha`."""

    r: _Rank
    peft_type: str = _KINDS[0]
    lora_alpha: float | None = None
    alpha: float | None = None
    rank_pattern: dict[str, _Rank] = {}
    alpha_pattern: dict[str, float] = {}
    use_rslora: bool = False
    use_dora: bool = False

    def __post_init__(self) -> None:
        if self.peft_type not in _KINDS:
            raise ValueError(f"peft_type is {self.peft_type!r}; expected {' or '.join(_KINDS)}")
        if self.lora_alpha is None and self.alpha is None:
            raise ValueError("it has neither lora_alpha nor alpha")
        for pattern in (*self.rank_pattern, *self.alpha_pattern):
            # PEFT evaluates them, and an expression of a stranger could take for ever.
            if not _NAME.fullmatch(pattern):
                raise ValueError(f"the pattern {pattern[:80]!r} is a regular expression; only names of layers are read")

    def factor(self, layer: str, rank: int | None) -> float:
        """Return what the change of a layer is multiplied by: alpha / rank, with rsLoRA alpha / sqrt(rank).

        `rank` is that of its matrices, None for a LoKr without products. Raises `ValueError` for another rank than the
        configuration has.
        """
        name = without_prefix(layer)
        told = _pattern(self.rank_pattern, name, self.r)
        if rank is not None and rank != told:
            raise ValueError(f"its matrices have rank {rank}, and its configuration says {told}")
        alpha = _pattern(self.alpha_pattern, name, self.lora_alpha if self.alpha is None else self.alpha)
        return float(alpha) / (sqrt(told) if self.use_rslora else told)


def config_in(path: Path) -> PeftConfig:
    """Return the configuration in the file that PEFT writes; raise `InvalidInputError` for another kind of adapter."""
    return _decode(read_config(path), path)


def config_of_diffusers(text: str, source: Path) -> PeftConfig:
    """Return the configuration in the header of a file of diffusers, whose fields begin with ``transformer.``."""
    try:
        fields = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInputError(source, f"its header has a configuration that cannot be read ({error})") from None
    return _decode({name.removeprefix("transformer."): value for name, value in fields.items()}, source)


def _decode(fields: Mapping[str, Any], source: Path) -> PeftConfig:
    for name in _OF_OTHER_KINDS:
        if fields.get(name):
            raise InvalidInputError(source, f"{name} is set; only plain LoRA and LoKr can be used")
    try:
        return msgspec.convert({name: value for name, value in fields.items() if value is not None}, PeftConfig)
    except (msgspec.ValidationError, OverflowError) as error:
        raise InvalidInputError(source, f"is no configuration of a LoRA or LoKr ({error})") from None


def _pattern(patterns: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    """The value of the first pattern that is the end of a layer's name; one with ^ is all of it."""
    for pattern, value in patterns.items():
        if name == pattern.removeprefix("^") or name.endswith(f".{pattern}"):
            return value
    return otherwise
