"""Proxies on loopback that record their requests, with a hub of one small repository behind them."""

import hashlib
import json
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HUB = "http://hub.invalid"
"""No name server knows it, so that only a proxy can lead there."""

_HEADER = b'{"x":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}'
FILES = {
    "config.json": b'{"model_type": "qwen3"}',
    "model.safetensors": len(_HEADER).to_bytes(8, "little") + _HEADER + b"\0",
    "tokenizer.json": b"{}",
}
COMMIT = "1" * 40


class _Hub(BaseHTTPRequestHandler):
    """The hub's answers for one model repository, whether it is asked directly or as a proxy."""

    server: "_Server"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_CONNECT(self) -> None:
        self.server.asked.append(f"CONNECT {self.path}")
        self.send_error(502)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass

    def _answer(self, *, body: bool) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        path = self.path.removeprefix(HUB).split("?")[0]
        name = path.rsplit("/", 1)[-1]
        kind = "application/octet-stream"
        if path.startswith("/api/"):
            siblings = [{"rfilename": file} for file in FILES]
            document: Any = {"id": "x/y", "sha": COMMIT, "siblings": siblings}
            if "/tree/" in path:
                document = [
                    {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}  # noqa: S324
                    for file, data in FILES.items()
                ]
            content, kind = json.dumps(document).encode(), "application/json"
        elif name in FILES:
            content = FILES[name]
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    asked: list[str]


class _Socks(socketserver.StreamRequestHandler):
    """SOCKS 5 without a password (RFC 1928), which leads every name to the hub."""

    server: "_SocksServer"

    def handle(self) -> None:
        _, methods = self.rfile.read(2)
        self.rfile.read(methods)
        self.wfile.write(b"\x05\x00")
        _, _, _, kind = self.rfile.read(4)
        length = {1: 4, 4: 16}.get(kind) or self.rfile.read(1)[0]
        host = self.rfile.read(length).decode("latin-1")
        (port,) = struct.unpack(">H", self.rfile.read(2))
        self.server.asked.append(f"SOCKS {host}:{port}")
        with socket.create_connection(self.server.hub) as onward:
            self.wfile.write(b"\x05\x00\x00\x01" + bytes(6))
            back = threading.Thread(target=_pour, args=(onward, self.connection), daemon=True)
            back.start()
            _pour(self.connection, onward)
            back.join(5)


class _SocksServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    asked: list[str]
    hub: tuple[str, int]


def _pour(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(65_536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@contextmanager
def http_proxy() -> Iterator[tuple[str, list[str]]]:
    """Its ``HOST:PORT``, and what it was asked, which grows."""
    with _Server(("127.0.0.1", 0), _Hub) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", server.asked
        server.shutdown()


@contextmanager
def socks_proxy() -> Iterator[tuple[str, list[str]]]:
    """Its ``HOST:PORT``, and where it was asked to lead, which grows."""
    with http_proxy() as (hub, _), _SocksServer(("127.0.0.1", 0), _Socks) as server:
        server.asked, server.hub = [], ("127.0.0.1", int(hub.rpartition(":")[2]))
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", server.asked
        server.shutdown()


def dead_port() -> int:
    """A port of this machine at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
