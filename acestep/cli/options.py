"""The command-line options for a model or a knob, shared by all commands that have them."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec
from msgspec import UNSET

from acestep.checkpoints.catalog import find
from acestep.errors import UsageError
from acestep.hardware.card import parse_size_gib
from acestep.hardware.detection.choose import DEVICE_VARIABLE
from acestep.limits import names
from acestep.limits.plan import Overrides, overrides_from

Command = TypeVar("Command", bound=Callable[..., Any])


def parsed(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Return a click type that calls one of our parsers; a value that is not text, such as `UNSET`, is kept."""

    def convert(value: Any) -> Any:
        try:
            return parse(value) if isinstance(value, str) else value
        except UsageError as error:
            raise click.BadParameter(str(error)) from None

    return convert


SIZE_GIB = parsed(lambda text: parse_size_gib(text, "the size"))
"""A card's size as the card reports it, in GiB."""

VARIANT = parsed(names.variant)

variant_option = click.option(
    "--variant", type=VARIANT, default="turbo", show_default=True, metavar="NAME", help="Which DiT model."
)

_KNOBS = (
    ("--lm", "Language model: 0.6B, 1.7B, 4B or none."),
    ("--lm-quantization", "Weights of the language model: int8, fp8, w8a8 or none."),
    ("--backend", "What runs the language model: pt, vllm or mlx."),
    ("--offload", "What leaves the card while unused: none, cpu, cpu+dit, stream or stream+encoders."),
    ("--quantization", "Weights of the transformer: int8, fp8, w8a8 or none."),
    ("--attention", "Attention kernels: auto, flash or sdpa."),
)


def refuse_empty(**values: str) -> None:
    """Raise `UsageError` naming an option with a blank value, as an unset shell variable produces.

    As a path it would mean the current folder.
    """
    for name, value in values.items():
        if not value.strip():
            raise UsageError(f"--{name.replace('_', '-')} is empty; give it a value or leave it out")


def _take_device(context: click.Context, _: click.Parameter, value: str | None) -> None:
    """Set the device for this command, for all code of this process that looks for a card and for child processes."""
    if value is None:
        return
    refuse_empty(device=value)
    before = os.environ.get(DEVICE_VARIABLE)
    os.environ[DEVICE_VARIABLE] = value

    def restore() -> None:
        if before is None:
            os.environ.pop(DEVICE_VARIABLE, None)
        else:
            os.environ[DEVICE_VARIABLE] = before

    context.call_on_close(restore)


device_option = click.option(
    "--device",
    metavar="N|UUID|NAME",
    expose_value=False,
    callback=_take_device,
    help="Which of several cards, as doctor lists them, or cpu; the one with most memory if not given.",
)


def knob_options(command: Command) -> Command:
    """Add the knobs; the card's tier decides those that are not given."""
    command = click.option(
        "--compile/--no-compile", "compile", default=None, help="Compile the transformer; the tier decides otherwise."
    )(command)
    for flag, text in reversed(_KNOBS):
        field = flag.removeprefix("--").replace("-", "_")
        kind = parsed(names.PARSERS[field])
        command = click.option(flag, field, type=kind, default=UNSET, metavar="NAME", help=text)(command)
    return command


def knobs_of(parameters: dict[str, Any]) -> Overrides:
    """Remove the options of `knob_options` and `--variant` from a command's parameters and return them as overrides."""
    values = {name: parameters.pop(name) for name in Overrides.__struct_fields__ if name in parameters}
    if values.get("compile") is None:
        values["compile"] = UNSET
    return overrides_from(values)


def knobs_with(model: str, parameters: dict[str, Any]) -> Overrides:
    """Do the same, for the variant of `model` if its name alone determines it."""
    overrides, checkpoint = knobs_of(parameters), find(model)
    if checkpoint is None or checkpoint.variant is None:
        return overrides
    return msgspec.structs.replace(overrides, variant=checkpoint.variant)
