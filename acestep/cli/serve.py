"""The command `acestep serve`: its options, and the checks before any heavy import."""

import re
from pathlib import Path
from typing import Any

import click

from acestep.adapters.choice import Adapter
from acestep.adapters.chosen import require_own_names
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

SHORTEST_TOKEN = 16
"""Characters of a token, so that it cannot be guessed."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What a token may have (RFC 6750, 2.1)."""

ADVICE = "set a token with --token or in ACESTEP_TOKEN, or give --no-auth to serve without one"


@click.command()
@port_option(8001)
@server_name_option
@click.option(
    "--token",
    "tokens",
    multiple=True,
    envvar="ACESTEP_TOKEN",
    show_envvar=True,
    metavar="TOKEN",
    help="Require this bearer token; can be given several times, and each sees only its own songs.",
)
@click.option("--no-auth", is_flag=True, help="Do not require a token, even if others can reach the server.")
@allow_host_option
@click.option("--init-service", is_flag=True, help="Load the model before the server answers.")
@click.option("--model", default="turbo", show_default=True, metavar="ID|DIR|tiny|dummy", help="Which weights.")
@model_variant_option
@device_option
@lm_device_option
@knob_options
@lora_option
@lora_unfused_option
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    default="out/api",
    show_default=True,
    help="Folder for the songs, which are deleted a day later, and when the server ends.",
)
def serve(
    port: int,
    server_name: str,
    tokens: tuple[str, ...],
    no_auth: bool,
    allow_host: tuple[str, ...],
    init_service: bool,
    model: str,
    out: str,
    adapters: tuple[Adapter | None, ...],
    lora_unfused: bool,
    **knobs: Any,
) -> None:
    """Make songs for programs, over HTTP; /openapi.json describes how."""
    refuse_empty(model=model, out=out, server_name=server_name)
    if not all(len(token) >= SHORTEST_TOKEN and _TOKEN.fullmatch(token) for token in tokens):
        raise UsageError(
            f"a token must have at least {SHORTEST_TOKEN} letters, digits or signs of -._~+/, so that it cannot be"
            " guessed; `openssl rand -hex 16` makes one"
        )
    require_guard(server_name, guarded=bool(tokens), open_to_all=no_auth, flag="--token", advice=ADVICE)

    require_device()
    used = adapters_in(adapters, unfused=lora_unfused)
    require_own_names(used)

    from acestep.http_api.serve import serve_api

    serve_api(
        model=model,
        overrides=knobs_with(model, knobs),
        adapters=used,
        out=Path(out),
        server_name=server_name,
        port=port,
        tokens=tokens,
        alone=not (tokens or no_auth),
        hosts=tuple(name.lower() for name in allow_host),
        init_service=init_service,
        announce=click.echo,
        notify=console.notify,
    )
