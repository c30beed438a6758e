"""The port that a server listens on."""

import socket

from acestep.errors import UsageError


def open_port(server_name: str, port: int, what: str) -> socket.socket:
    """Return a socket that listens on the port, or on a free one for 0; raise `UsageError` if it is not available.

    The error says `what` cannot be opened there.
    """
    host = server_name.strip("[]")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UsageError(
            f"the {what} cannot be opened on port {port} of {server_name} ({error.strerror or error});"
            " choose another with --port or --server-name"
        ) from None


def port_of(listening: socket.socket) -> int:
    """Return the number of the port that a socket listens on."""
    return int(listening.getsockname()[1])


def names_of_this_machine() -> tuple[str, str]:
    """Return the names by which others in its network reach this machine."""
    name = socket.gethostname().lower()
    return name, f"{name.partition('.')[0]}.local"
