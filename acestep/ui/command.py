"""The command `acestep ui`: its options, and what it refuses before anything heavy is imported."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from acestep import console
from acestep.errors import UsageError
from acestep.options import VARIANT, device_option, knob_options, knobs_with, refuse_empty
from acestep.ui.doorman import is_loopback
from acestep.ui.words import LANGUAGES

MOST_PORTS = 65_535


class PageByDefault(click.Group):
    """A group of commands that opens the page where none is named, with options or without."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The arguments, with the command that is meant."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["ui", *args]
        return super().parse_args(ctx, args)


@click.command()
@click.option("--port", type=click.IntRange(0, MOST_PORTS), default=7860, show_default=True, help="0 picks a free one.")
@click.option("--server-name", default="127.0.0.1", show_default=True, metavar="ADDR", help="Where to listen.")
@click.option("--share", is_flag=True, help="Have a public address made by gradio's servers.")
@click.option("--auth", multiple=True, metavar="USER:PASSWORD", help="Who may come in; can be given several times.")
@click.option("--no-auth", is_flag=True, help="Let everybody in who reaches the page, from anywhere.")
@click.option("--language", type=click.Choice(LANGUAGES), default="en", show_default=True, help="What the page speaks.")
@click.option("--init-service", is_flag=True, help="Load the model before the page opens.")
@click.option("--model", default="turbo", show_default=True, metavar="ID|DIR|tiny|dummy", help="Which weights.")
@click.option("--variant", type=VARIANT, default="turbo", metavar="NAME", help="What tiny and dummy weights imitate.")
@device_option
@knob_options
@click.option("--out", type=click.Path(file_okay=False), default="out", show_default=True, help="Where songs are kept.")
def ui(
    port: int,
    server_name: str,
    share: bool,
    auth: tuple[str, ...],
    no_auth: bool,
    language: str,
    init_service: bool,
    model: str,
    out: str,
    **knobs: Any,
) -> None:
    """Open the page in which songs are made; without a command, acestep does this."""
    refuse_empty(model=model, out=out, server_name=server_name)
    users = people(auth)
    check_reach(server_name, share=share, users=users, open_to_all=no_auth)

    from acestep.ui.serve import serve

    serve(
        model=model,
        overrides=knobs_with(model, knobs),
        out=Path(out),
        language=language,
        server_name=server_name,
        port=port,
        auth=users,
        share=share,
        alone=not (users or no_auth),
        init_service=init_service,
        announce=click.echo,
        notify=console.notify,
    )


def people(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Names and passwords from ``USER:PASSWORD``; neither may be empty."""
    users = tuple(one.partition(":")[::2] for one in given)
    if any(not name or not password for name, password in users):
        raise UsageError("--auth must be USER:PASSWORD, with something before and after the colon")
    return users


def check_reach(server_name: str, *, share: bool, users: Sequence[object], open_to_all: bool) -> None:
    """Refuse with `UsageError` a page that others can reach and nobody guards, unless that is what is wanted."""
    if users and open_to_all:
        raise UsageError("choose one of --auth and --no-auth")
    if users or open_to_all or not (share or not is_loopback(server_name)):
        return
    where = "--share makes the page public" if share else f"others can reach {server_name}"
    raise UsageError(f"{where}; say who may come in with --auth USER:PASSWORD, or --no-auth to let everybody in")
