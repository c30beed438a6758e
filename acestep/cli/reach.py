"""Who can reach a server: its address, port and host names, and that others need a password or a token."""

from collections.abc import Callable
from typing import Any

import click

from acestep.errors import UsageError
from acestep.serving.own_address import is_loopback

MOST_PORTS = 65_535


def port_option(default: int) -> Callable[[Any], Any]:
    """Return the option for the port."""
    return click.option(
        "--port", type=click.IntRange(0, MOST_PORTS), default=default, show_default=True, help="0 picks a free one."
    )


server_name_option = click.option(
    "--server-name", default="127.0.0.1", show_default=True, metavar="ADDR", help="Address to listen on."
)

allow_host_option = click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Answer to this host name too, for example that of a reverse proxy; can be given several times.",
)


def require_guard(
    server_name: str, *, guarded: bool, open_to_all: bool, flag: str, advice: str, share: bool = False
) -> None:
    """Raise `UsageError` for a server that others can reach without a guard, unless that is explicitly allowed.

    `flag` is the option of the guard, and `advice` says how to use it.
    """
    if guarded and open_to_all:
        raise UsageError(f"choose one of {flag} and --no-auth")
    if guarded or open_to_all or not (share or not is_loopback(server_name)):
        return
    where = "--share makes the page public" if share else f"others can reach {server_name}"
    raise UsageError(f"{where}; {advice}")
