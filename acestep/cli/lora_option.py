"""The option that names adapters: `--lora FILE|DIR[:SCALE]`."""

from collections.abc import Sequence

import click

from acestep.adapters.choice import Adapter, adapter_of, all_unfused
from acestep.adapters.files import read_adapter_file
from acestep.cli.options import parsed
from acestep.knobs import NONE_NAMES


def _adapter(text: str) -> Adapter | None:
    return None if text.lower() in NONE_NAMES else adapter_of(text)


lora_option = click.option(
    "--lora",
    "adapters",
    type=parsed(_adapter),
    multiple=True,
    metavar="FILE|DIR[:SCALE]",
    help="A LoRA or LoKr for the model, as safetensors, and how strongly it is used, 1 if not given. Can be given"
    " several times; none uses none.",
)


lora_unfused_option = click.option(
    "--lora-unfused",
    is_flag=True,
    help="Keep adapters apart from the weights: to switch them or to change their scales loads nothing again, but"
    " songs take longer, and the card holds the adapters too.",
)


def adapters_in(given: Sequence[Adapter | None], *, unfused: bool) -> tuple[Adapter, ...]:
    """Return the adapters of both options; raise `InvalidInputError` for a file that is none. Imports no torch."""
    adapters = tuple(one for one in given if one is not None)
    if unfused:
        adapters = all_unfused(adapters)
    for adapter in adapters:
        read_adapter_file(adapter.path)
    return adapters
