"""The proxies in the environment: checks that they can be used, and lets this machine reach itself without them.

The names and their order are those of `urllib.request.getproxies_environment`, which the HTTP libraries use.
"""

import logging
import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from ipaddress import ip_address
from urllib.parse import urlsplit

from acestep.errors import UsageError

_LOG = logging.getLogger(__name__)

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""The host names of this machine for itself."""

_KINDS = ("http", "https", "all")
_SOCKS = ("socks5", "socks5h")
_SCHEMES = ("http", "https", *_SOCKS)
"""The proxy schemes that the HTTP libraries support (`httpx.Proxy`)."""

_LARGEST_PORT = 65_535


def variable_of(kind: str, environ: Mapping[str, str]) -> str | None:
    """Return the name of the variable in force for ``http``, ``https``, ``all`` or ``no``; None if none is set.

    The name in lower case has priority over all others, even if it is empty.
    """
    wanted = f"{kind}_proxy"
    if wanted in environ:
        return wanted if environ[wanted] else None
    return next((name for name in environ if name.lower() == wanted and environ[name]), None)


def in_use(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that name a proxy, with their values; empty if ``NO_PROXY=*`` disables all of them."""
    if "*" in _exceptions(environ):
        return {}
    names = (variable_of(kind, environ) for kind in _KINDS)
    return {name: environ[name] for name in names if name}


def require_usable(environ: Mapping[str, str]) -> None:
    """Raise `UsageError` for a proxy that cannot be used, with what to install or to set."""
    for name, value in in_use(environ).items():
        if problem := _problem(value):
            raise UsageError(f"{name} is {shown(value)!r}, and {problem}")


def shown(value: str) -> str:
    """Return a proxy's address without user name and password."""
    before, at, host = value.rpartition("@")
    scheme, separator, _ = before.partition("://")
    return f"{scheme}{separator}***@{host}" if at and separator else f"***@{host}" if at else value


def _problem(value: str) -> str | None:
    address = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(address)
        is_whole = bool(parts.hostname) and parts.port != 0 and address.isprintable() and " " not in address
        # What looks a name up refuses a part that is empty or longer than 63 characters.
        (parts.hostname or "").encode("idna")
    except ValueError:
        return "that is no address; write it as http://HOST:PORT"
    if parts.scheme.startswith("socks") and parts.scheme not in _SOCKS:
        return f"{parts.scheme} is not supported; write socks5://HOST:PORT if the proxy speaks SOCKS 5"
    if parts.scheme not in _SCHEMES:
        return (
            f"{parts.scheme or 'it'} is no kind of proxy; choose one of {', '.join(_SCHEMES)}, as in http://HOST:PORT"
        )
    if not is_whole:
        return f"that is no address; write it as {parts.scheme}://HOST:PORT"
    if parts.scheme in _SOCKS and find_spec("socksio") is None:
        return "SOCKS needs a library that is not installed: pip install socksio"
    return None


def reach_directly(hosts: tuple[str, ...], environ: MutableMapping[str, str]) -> None:
    """Let the HTTP libraries reach `hosts` without a proxy; the user's own exceptions stay, as far as they can be read.

    Some releases of the libraries fail at an exception that they cannot read. Both spellings of the variable are set,
    because some programs read only one of them.
    """
    exceptions = _exceptions(environ)
    if "*" in exceptions:
        return
    readable = []
    for exception in exceptions:
        if bare := _readable(exception):
            readable.append(bare)
        else:
            _LOG.warning("%r in NO_PROXY is no host name or address and is left out", shown(exception))
    if any(variable_of(kind, environ) for kind in _KINDS):
        readable += [host for host in hosts if host not in readable]
    if readable != list(exceptions):
        environ["NO_PROXY"] = environ["no_proxy"] = ",".join(readable)


@contextmanager
def without_proxies() -> Iterator[None]:
    """Use no proxy inside the block, not even one from the system's settings."""
    with _restored():
        for name in _variables():
            del os.environ[name]
        os.environ["NO_PROXY"] = "*"
        yield


@contextmanager
def with_proxies() -> Iterator[None]:
    """Use the proxies of the environment inside the block, never for this machine.

    Raises `UsageError` for a proxy that cannot be used.
    """
    require_usable(os.environ)
    with _restored():
        reach_directly(LOOPBACK, os.environ)
        yield


@contextmanager
def _restored() -> Iterator[None]:
    """Restore the environment after the block."""
    before = {name: os.environ[name] for name in _variables()}
    try:
        yield
    finally:
        for name in _variables():
            del os.environ[name]
        os.environ.update(before)


def _variables() -> list[str]:
    return [name for name in os.environ if name.lower().endswith("_proxy")]


def _exceptions(environ: Mapping[str, str]) -> tuple[str, ...]:
    name = variable_of("no", environ)
    return tuple(host.strip() for host in environ[name].split(",") if host.strip()) if name else ()


def _readable(exception: str) -> str | None:
    """Return an exception in a form that all releases of the HTTP libraries read; None if there is none.

    An IPv6 address loses its brackets and its port. An address with a user, a path or an empty port is cut down to its
    host and port.
    """
    address = exception.removeprefix("[").removesuffix("]")
    with suppress(ValueError):
        ip_address(address)
        return address
    host = exception.partition("://")[2] or exception
    name, colon, port = host.partition(":")
    is_name = exception.isascii() and exception.isprintable() and not set(name) & set(" []@\\")
    is_plain = is_name and (not colon or (port.isdecimal() and int(port) <= _LARGEST_PORT))
    return exception if is_plain else _host_of(exception)


def _host_of(exception: str) -> str | None:
    try:
        parts = urlsplit(exception if "://" in exception else f"all://{exception}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    with suppress(ValueError):
        ip_address(host)
        return host
    if not host or not exception.isprintable() or set(host) & set(" []@\\"):
        return None
    ending = f":{port}" if port else ""
    if host.isascii():
        return f"{host}{ending}"
    # Imported only for such names; not every letter may be in a name.
    import httpx

    try:
        # The library recognizes a name with other letters only after a scheme.
        return f"all://{httpx.URL(f'all://{host}').raw_host.decode()}{ending}"
    except httpx.InvalidURL:
        return None
