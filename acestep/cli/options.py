"""The command-line options for a model or a knob, shared by all commands that have them."""

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec
from msgspec import UNSET

from acestep.checkpoints.catalog import SIZES, checkpoints_dir, find
from acestep.checkpoints.locate import variant_at
from acestep.errors import UsageError
from acestep.hardware.card import CardKind, parse_size_gib
from acestep.hardware.detection import DEVICE_VARIABLE, LM_DEVICE_VARIABLE, look
from acestep.hardware.detection.torch_build import installed_build
from acestep.knobs import KNOBS, Variant
from acestep.limits.names import parser_of
from acestep.limits.plan import Overrides, overrides_from

Command = TypeVar("Command", bound=Callable[..., Any])


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def with_options(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return a decorator that adds several options to a command, in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


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

VARIANT = parsed(parser_of("variant"))

variant_option = click.option(
    "--variant", type=VARIANT, default="turbo", show_default=True, metavar="NAME", help="Which DiT model."
)

model_variant_option = click.option(
    "--variant", type=VARIANT, metavar="NAME", help="What tiny and dummy weights imitate; what others must be."
)
"""For commands that have `--model` too: `knobs_with` compares the two."""


def refuse_empty(**values: str) -> None:
    """Raise `UsageError` naming an option with a blank value, as an unset shell variable produces.

    As a path it would mean the current folder.
    """
    for name, value in values.items():
        if not value.strip():
            raise UsageError(f"--{name.replace('_', '-')} is empty; give it a value or leave it out")


def in_flags(sentence: str, flags: dict[str, str]) -> str:
    """Return an error's sentence with options instead of field names; quoted text is unchanged."""
    names = "|".join(map(re.escape, flags))
    return re.sub(rf"'[^']*'|\b({names})\b", lambda found: flags.get(found[0], found[0]), sentence)


def _take_device(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Set the device for this command, for all code of this process that looks for a card and for child processes."""
    if value is None:
        return
    name = str(option.name)
    refuse_empty(**{name: value})
    variable = LM_DEVICE_VARIABLE if name == "lm_device" else DEVICE_VARIABLE
    before = os.environ.get(variable)
    os.environ[variable] = value

    def restore() -> None:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before

    context.call_on_close(restore)


def require_device() -> None:
    """Raise `UsageError` for a device that is not here, before torch is imported, which takes seconds.

    Where no other source knows a card and torch was built for some, torch may know it.
    """
    try:
        look(os.environ)
    except UsageError:
        unnamed = {
            name: value for name, value in os.environ.items() if name not in (DEVICE_VARIABLE, LM_DEVICE_VARIABLE)
        }
        build = installed_build()
        if look(unnamed).cards or build is None or build.kinds == (CardKind.MPS,):
            raise


def _choice_of_device(flag: str, meaning: str) -> Callable[[Command], Command]:
    return click.option(flag, metavar="N|UUID|NAME", expose_value=False, callback=_take_device, help=meaning)


device_option = _choice_of_device(
    "--device", "Which of several cards, as doctor lists them, such as 1 or cuda:1, or cpu; by default the largest."
)
lm_device_option = _choice_of_device(
    "--lm-device", "Which card the language model runs on, or cpu; that of the songs if not given."
)


def knob_options(command: Command) -> Command:
    """Add the knobs; what is not given comes from the card's tier."""
    for knob in reversed(KNOBS.values()):
        if knob.is_switch:
            command = click.option(f"--{knob.flag}/--no-{knob.flag}", knob.name, default=None, help=knob.help)(command)
        elif knob.name != "variant":
            command = click.option(f"--{knob.flag}", knob.name, **knob_attributes(knob.name))(command)
    return command


def knob_attributes(name: str) -> dict[str, Any]:
    """What click is told about the option of a knob: `UNSET` stands for an option that is not given."""
    return {"type": parsed(parser_of(name)), "default": UNSET, "metavar": "NAME", "help": KNOBS[name].help}


def knobs_of(parameters: dict[str, Any]) -> Overrides:
    """Remove the options of `knob_options` and `--variant` from a command's parameters and return them as overrides."""
    values = {name: parameters.pop(name) for name in Overrides.__struct_fields__ if name in parameters}
    unset = {name: UNSET for name, value in values.items() if KNOBS[name].is_switch and value is None}
    return overrides_from(values | unset)


def knobs_with(model: str, parameters: dict[str, Any]) -> Overrides:
    """Do the same, for the variant of `model` if its name alone determines it.

    Raises `UsageError` if the weights of `model` are of another variant than `--variant` says.
    """
    asked: Variant | None = parameters.pop("variant", None)
    overrides, checkpoint = knobs_of(parameters), find(model)
    known = None if checkpoint is None else checkpoint.variant
    if asked is not None and model not in SIZES and (found := known or variant_at(model, checkpoints_dir())) != asked:
        raise UsageError(f"--model {model} is {found}, not {asked}; leave --variant out, or name another model")
    variant = asked or known
    return overrides if variant is None else msgspec.structs.replace(overrides, variant=variant)
