"""The option that names adapters: `--lora FILE|DIR[:SCALE]`."""

from collections.abc import Sequence

import click

from acestep.adapters.choice import Adapter, adapter_of
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


def adapters_in(given: Sequence[Adapter | None]) -> tuple[Adapter, ...]:
    """Return the adapters of the option; raise `InvalidInputError` for a file that is no adapter. Imports no torch."""
    adapters = tuple(one for one in given if one is not None)
    for adapter in adapters:
        read_adapter_file(adapter.path)
    return adapters
