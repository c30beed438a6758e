"""The command `acestep ui`: its options, and the checks before any heavy import."""

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acestep.adapters.choice import Adapter
from acestep.cli import console
from acestep.cli.lora_option import adapters_in, lora_option, lora_unfused_option
from acestep.cli.options import (
    device_option,
    knob_options,
    knobs_with,
    lm_device_option,
    model_variant_option,
    refuse_empty,
    require_device,
)
from acestep.cli.reach import allow_host_option, port_option, require_guard, server_name_option
from acestep.errors import UsageError
from acestep.locale_text import LANGUAGES

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

LOGIN_ADVICE = "set a login with --auth USER:PASSWORD, or give --no-auth to serve the page without one"

_SEVERAL_V = re.compile("-vv+")
"""`-v` given several times in one word."""


class PageByDefault(click.Group):
    """A group of commands that opens the page if no command is named, with or without options.

    Options of the group itself, such as ``-v``, come before the command or before the options of the page.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Return the arguments with the implied command added."""
        own = {flag for parameter in self.get_params(ctx) for flag in parameter.opts}
        first = sum(1 for _ in takewhile(lambda word: word in own or _SEVERAL_V.fullmatch(word), args))
        asks_for_help = any(word in ctx.help_option_names for word in args[:first])
        # Shell completion passes an unfinished line: the command may follow later.
        none_named = first == len(args) and not ctx.resilient_parsing
        if not asks_for_help and (none_named or (first < len(args) and args[first].startswith("-"))):
            args = [*args[:first], "ui", *args[first:]]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Return commands, and the options of both the program and the page."""
        found = super().shell_complete(ctx, incomplete)
        if not incomplete.startswith("-"):
            return found
        known = {item.value for item in found}
        with click.Context(ui, info_name=ui.name, parent=ctx, resilient_parsing=True) as page:
            return found + [item for item in ui.shell_complete(page, incomplete) if item.value not in known]


@click.command()
@port_option(7860)
@server_name_option
@click.option("--share", is_flag=True, help="Create a public address through gradio's servers.")
@click.option(
    "--auth",
    multiple=True,
    metavar="USER:PASSWORD",
    help="Require a user name and password; can be given several times.",
)
@click.option("--no-auth", is_flag=True, help="Do not require a password, even if others can reach the page.")
@allow_host_option
@click.option("--language", type=click.Choice(LANGUAGES), help="Language of the page; without it, the browser's.")
@click.option("--init-service", is_flag=True, help="Load the model before the page opens.")
@click.option("--model", default="turbo", show_default=True, metavar="ID|DIR|tiny|dummy", help="Which weights.")
@model_variant_option
@lora_option
@lora_unfused_option
@device_option
@lm_device_option
@knob_options
@click.option("--out", type=click.Path(file_okay=False), default="out", show_default=True, help="Folder for the songs.")
def ui(
    port: int,
    server_name: str,
    share: bool,
    auth: tuple[str, ...],
    no_auth: bool,
    allow_host: tuple[str, ...],
    language: str | None,
    init_service: bool,
    model: str,
    adapters: tuple[Adapter | None, ...],
    lora_unfused: bool,
    out: str,
    **knobs: Any,
) -> None:
    """Open the page in which songs are made; without a command, acestep does this."""
    refuse_empty(model=model, out=out, server_name=server_name)
    users = people(auth)
    require_guard(
        server_name, share=share, guarded=bool(users), open_to_all=no_auth, flag="--auth", advice=LOGIN_ADVICE
    )
    require_device()
    used = adapters_in(adapters, unfused=lora_unfused)

    from acestep.ui.serve import serve_page

    serve_page(
        model=model,
        adapters=used,
        overrides=knobs_with(model, knobs),
        out=Path(out),
        language=language,
        server_name=server_name,
        port=port,
        auth=users,
        share=share,
        alone=not (users or no_auth),
        hosts=tuple(name.lower() for name in allow_host),
        init_service=init_service,
        announce=click.echo,
        notify=console.notify,
    )


def people(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return names and passwords from ``USER:PASSWORD``; neither may be empty."""
    users = tuple(one.partition(":")[::2] for one in given)
    if any(not name or not password for name, password in users):
        raise UsageError("--auth must be USER:PASSWORD, with something before and after the colon")
    return users
