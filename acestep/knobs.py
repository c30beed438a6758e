"""The knobs of a run: what a plan decides and a probe turns. Each is declared once, at its field of `KnobValues`."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import NoneType
from typing import Annotated, Any, get_args

import msgspec


class Variant(StrEnum):
    """The DiT variants, by the short names used on the command line and in the tier table."""

    TURBO = "turbo"
    BASE = "base"
    SFT = "sft"
    XL_TURBO = "xl-turbo"
    XL_BASE = "xl-base"
    XL_SFT = "xl-sft"

    @property
    def is_turbo(self) -> bool:
        """Whether guidance is distilled into the weights, so that one pass a step is enough."""
        return self in (Variant.TURBO, Variant.XL_TURBO)

    @property
    def is_xl(self) -> bool:
        """Whether this is the 4B transformer."""
        return self.value.startswith("xl-")


LM_MODELS = ("0.6B", "1.7B", "4B")
"""The 5 Hz language models by their short names, smallest first."""


class Offload(StrEnum):
    """Which parts leave the device while they are not in use, from none to every layer."""

    NONE = "none"
    CPU = "cpu"
    CPU_DIT = "cpu+dit"
    STREAM = "stream"
    STREAM_ENCODERS = "stream+encoders"


STREAMING = frozenset({Offload.STREAM, Offload.STREAM_ENCODERS})
"""With these, the transformer's blocks come to the device one after another in every step."""


class Quantization(StrEnum):
    """Weight formats of the transformer; no quantization is null in JSON and None here."""

    INT8 = "int8"
    FP8 = "fp8"
    W8A8 = "w8a8"


class WeightFormat(msgspec.Struct, frozen=True, kw_only=True):
    """How weights are stored. `torchao` names its configuration there, `published` is what ACE-Step calls it.

    `bits` are those of one weight. `loss` orders the formats by how much is rounded; no quantization has 0.
    `weight_only` formats are unpacked where they are used; the others compute with the weights as they are.
    `capability` is the first compute capability of an NVIDIA card that runs it.
    """

    torchao: str
    published: str
    bits: int
    loss: int
    weight_only: bool = True
    capability: tuple[int, int] = (0, 0)


WEIGHT_FORMATS: Mapping[Quantization, WeightFormat] = {
    Quantization.INT8: WeightFormat(torchao="Int8WeightOnlyConfig", published="int8_weight_only", bits=8, loss=1),
    # FP8 arithmetic came with Ada; torchao refuses older cards.
    Quantization.FP8: WeightFormat(
        torchao="Float8WeightOnlyConfig", published="fp8_weight_only", bits=8, loss=1, capability=(8, 9)
    ),
    Quantization.W8A8: WeightFormat(
        torchao="Int8DynamicActivationInt8WeightConfig", published="w8a8_dynamic", bits=8, loss=2, weight_only=False
    ),
}
"""The properties of each quantization."""


def unpacks(quantization: Quantization | None) -> bool:
    """Whether weights of this format are unpacked when they are used."""
    return quantization is not None and WEIGHT_FORMATS[quantization].weight_only


class Backend(StrEnum):
    """What runs the language model."""

    PT = "pt"
    VLLM = "vllm"
    MLX = "mlx"


class Attention(StrEnum):
    """Which attention kernels may be used: the best one found, flash-attn only, or PyTorch's own."""

    AUTO = "auto"
    FLASH = "flash"
    SDPA = "sdpa"


NONE_NAMES = ("none", "null")
"""The text for null where only text is possible."""


class Knob(msgspec.Struct, frozen=True, kw_only=True):
    """A knob as users see it. Its name, type and default are those of its field, and `KNOBS` fills them in.

    `noun` is its name in sentences, `about` the help of its option without the values. `phrase` describes a value in a
    list, "{}" standing for it, and `absent` stands for None; a knob without a phrase is described where it is not at
    its default. `named` are the values of a knob that is text. Values go from comfortable to frugal where the knob
    `saves` memory. Knobs `of_lm` mean nothing without a language model. `loads` says that other weights are loaded for
    another value. A knob `added` after the first records is no part of their digest while it is at its default.
    """

    noun: str
    about: str
    phrase: str = ""
    absent: str = ""
    named: tuple[str, ...] = ()
    saves: bool = False
    of_lm: bool = False
    loads: bool = False
    added: bool = False
    name: str = ""
    kind: type = str
    optional: bool = False
    default: Any = None

    @property
    def is_switch(self) -> bool:
        """Whether the knob is on or off, and not one of several values."""
        return self.kind is bool

    @property
    def values(self) -> tuple[Any, ...]:
        """Every value in order: none at all, then the others as they are declared."""
        members = (
            (False, True) if self.is_switch else tuple(self.kind) if issubclass(self.kind, StrEnum) else self.named
        )
        return ((None,) if self.optional else ()) + members

    @property
    def choices(self) -> tuple[str, ...]:
        """The text that a user types for each value, ``none`` last."""
        members = tuple(str(value) for value in self.values if value is not None)
        return (*members, NONE_NAMES[0]) if self.optional else members

    @property
    def help(self) -> str:
        """The help of the knob's option."""
        if self.is_switch:
            return f"{self.about}."
        return f"{self.about}: {self.listed}."

    @property
    def listed(self) -> str:
        """The choices as part of a sentence."""
        *most, last = self.choices
        return f"{', '.join(most)} or {last}"

    @property
    def flag(self) -> str:
        """The name of the knob's option."""
        return self.name.replace("_", "-")

    def arguments(self, value: Any) -> tuple[str, ...]:
        """The words of a command line that set the knob."""
        if self.is_switch:
            return (f"--{self.flag}" if value else f"--no-{self.flag}",)
        return f"--{self.flag}", NONE_NAMES[0] if value is None else str(value)

    def rank(self, value: Any) -> int:
        """The place of a value in the order of the knob; formats of weights that round alike have the same."""
        if self.kind is Quantization:
            return 0 if value is None else WEIGHT_FORMATS[value].loss
        return self.values.index(value)

    def describe(self, value: Any) -> str:
        """A value in a list of them; empty where there is nothing to say."""
        if self.phrase:
            return self.absent if value is None else self.phrase.format(value)
        if value == self.default:
            return ""
        return f"{self.noun} {self.as_text(value)}"

    def as_text(self, value: Any) -> str:
        """A value as a person reads it alone."""
        if self.is_switch:
            return "on" if value else "off"
        return self.absent or NONE_NAMES[0] if value is None else str(value)


class KnobValues(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value for every knob: the only place where a knob is declared."""

    variant: Annotated[Variant, Knob(noun="variant", about="DiT model", phrase="{}", loads=True)] = Variant.TURBO
    lm: Annotated[
        str | None,
        Knob(noun="language model", about="Language model", phrase="{}", named=LM_MODELS, of_lm=True, loads=True),
    ] = None
    backend: Annotated[
        Backend,
        Knob(noun="backend", about="What runs the language model", phrase="on {}", of_lm=True, loads=True),
    ] = Backend.PT
    offload: Annotated[
        Offload, Knob(noun="offload", about="What leaves the card while unused", phrase="offload {}", saves=True)
    ] = Offload.NONE
    quantization: Annotated[
        Quantization | None,
        Knob(
            noun="quantization",
            about="Weights of the transformer",
            phrase="{}",
            absent="unquantized",
            saves=True,
            loads=True,
        ),
    ] = None
    lm_quantization: Annotated[
        Quantization | None,
        Knob(
            noun="LM weights",
            about="Weights of the language model",
            phrase="in {}",
            saves=True,
            of_lm=True,
            loads=True,
        ),
    ] = None
    attention: Annotated[Attention, Knob(noun="attention", about="Attention kernels")] = Attention.AUTO
    compile: Annotated[bool, Knob(noun="compile", about="Compile the transformer; the tier decides otherwise")] = False


class Knobs(KnobValues, frozen=True):
    """One way to run the pipeline; two runs with equal knobs load the same weights in the same places."""


def declared_knobs(values: type[msgspec.Struct]) -> Iterator[Knob]:
    """The knob of each field, with the name, the type and the default of the field."""
    for field in msgspec.structs.fields(values):
        kind, *about = get_args(field.type)
        (knob,) = (said for said in about if isinstance(said, Knob))
        options = get_args(kind) or (kind,)
        yield msgspec.structs.replace(
            knob,
            name=field.name,
            kind=next(option for option in options if option is not NoneType),
            optional=NoneType in options,
            default=field.default,
        )


KNOBS = {knob.name: knob for knob in declared_knobs(KnobValues)}
"""Every knob by its name."""
