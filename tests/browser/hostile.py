"""Requests that the page never sends, drawn from a seed: wrong types and sizes, paths outside, broken bodies."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import msgspec

API = "/gradio_api"
JSON: Mapping[str, str] = MappingProxyType({"content-type": "application/json"})

SMALL_SONG = {"caption": "rain", "duration": 1, "steps": 1, "batch": 1, "think": False}
"""The valid part of a hostile request: a song that costs almost nothing."""

VALUES: tuple[Any, ...] = (
    *(None, True, "", " ", "x", "none", "null", "-1", "1e999", "../../..", "\0", "\ud800", "＜script＞", "🎵" * 5000),
    *(0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.1, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
    *([], [[]], [None] * 1000, {}, {"path": "/etc/passwd"}, {"__type__": "update"}, {"value": 1, "choices": []}),
    *("x" * 1_000_000, "<img src=x onerror=alert(1)>", "{{7*7}}", "'; DROP TABLE songs; --", "%s%s%n", "\r\nX: y"),
)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server is, and what it must not touch: a file outside its output folder, and an address."""

    out: Path
    secret: Path
    listener: str
    endpoints: Mapping[str, Mapping[str, Any]]


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Where it joins the queue, `endpoint` names what will answer on a stream."""

    method: str
    path: str
    content: bytes = b""
    headers: Mapping[str, str] = JSON
    endpoint: str = ""

    @property
    def short(self) -> str:
        """The request as an assertion shows it."""
        return f"{self.method} {self.path[:200]!r} {self.content[:300]!r}"


def attempts(seed: int, count: int, place: Place) -> list[Attempt]:
    """`count` requests, the kinds of them in turn."""
    draw = Random(seed)  # noqa: S311 a seed is the point
    return [KINDS[number % len(KINDS)](draw, place) for number in range(count)]


def _values(draw: Random, place: Place) -> Attempt:
    """Some inputs of an endpoint replaced by what they are not."""
    endpoint, fields = _fields(draw, place)
    for name in draw.sample(sorted(fields), draw.choice((1, 1, 2, len(fields)))):
        fields[name] = draw.choice(VALUES)
    return _call(endpoint, {"data": list(fields.values())})


def _count(draw: Random, place: Place) -> Attempt:
    """Too few inputs, too many, or something that is no list of them."""
    endpoint, fields = _fields(draw, place)
    values = list(fields.values())
    data = draw.choice((values[:-1], values[1:], [*values, 1], values * 50, [], None, "data", {"0": 1}, 7, [[values]]))
    return _call(endpoint, draw.choice(({"data": data}, {"data": data, "session_hash": []}, {"dat": data}, data)))


def _body(draw: Random, place: Place) -> Attempt:
    """A body that is no request at all."""
    endpoint, _ = _fields(draw, place)
    content = draw.choice(
        (
            *(
                b"",
                b"{",
                b"null",
                b"NaN",
                b'{"data": NaN}',
                b"\xff\xfe\x00",
                b"--x\r\n",
                b'{"data": [1}',
                b"[" * 100_000,
            ),
            *(b'{"data": ' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"data": ["' + b"x" * 4_000_000 + b'"]}'),
            *(b'{"data": [' + b"1" * 100_000 + b"]}", b'{"data": [], "data": 1}', b'{"__proto__": {"data": []}}'),
        )
    )
    kind = draw.choice(("application/json", "text/plain", "multipart/form-data", "application/json; charset=utf-7", ""))
    return Attempt(
        method="POST", path=f"{API}/call/{endpoint}", content=content, headers={"content-type": kind}, endpoint=endpoint
    )


def _file_inputs(draw: Random, place: Place) -> Attempt:
    """Audio that was never uploaded: paths elsewhere, addresses, and what only looks like a file."""
    fields = dict(place.endpoints["generate"]) | SMALL_SONG
    path, kind = draw.choice(elsewhere(place)), {"_type": "gradio.FileData"}
    url = draw.choice(
        (place.listener, f"file://{place.secret}", "ftp://127.0.0.1/x", "//127.0.0.1", "data:audio/wav,x")
    )
    audio = draw.choice(
        (
            {"path": path, "meta": kind},
            {"path": path, "url": url, "meta": kind},
            {"path": url, "meta": kind},
            {"path": path, "meta": kind, "is_stream": True},
            {"path": path, "meta": kind, "orig_name": "../../../evil.wav", "size": -1, "mime_type": "text/html"},
            {"path": [path], "meta": kind},
            {"url": url, "meta": kind},
            path,
            [path, url],
        )
    )
    for name in draw.choice((("reference_audio",), ("source_audio",), ("reference_audio", "source_audio"))):
        fields[name] = audio
    fields["task"] = draw.choice(("text2music", "cover", "repaint"))
    return _call("generate", {"data": list(fields.values())})


def _file_addresses(draw: Random, place: Place) -> Attempt:
    """A file requested by its address, in spellings that have fooled servers before."""
    path = draw.choice((*elsewhere(place), place.listener, str(place.out), "", "%00", "C:\\Windows\\win.ini"))
    spelled = draw.choice(
        (
            *(path, quote(path, safe=""), quote(quote(path, safe="")), path.replace("/", "\\"), path + "%00.wav"),
            *("." + path, "//" + path, path.replace("..", "..;"), path.replace("/", "%c0%af"), path.upper()),
        )
    )
    route = draw.choice(("file=", "file/", "proxy=", "stream/x/", "custom_component/", "../file=", "file=file="))
    root = draw.choice((API, API, API, "", "/static", "/assets", "/svelte", "/theme.css"))
    headers = draw.choice(({}, {"range": "bytes=0-10"}, {"range": "bytes=1-2-3"}, {"range": "bytes=9-1"}))
    method = draw.choice(("GET", "GET", "GET", "HEAD"))
    address = f"{root}/{route}{spelled}".encode("ascii", "ignore").decode()
    return Attempt(method=method, path="".join(filter(str.isprintable, address)).replace(" ", "%20"), headers=headers)


def _uploads(draw: Random, place: Place) -> Attempt:
    """Files that must not be accepted: names that lead elsewhere, and empty, endless or nameless ones."""
    name = draw.choice(
        (f"../../{place.secret.name}", "/etc/cron.d/x", "..", "", "a" * 5000, "x.html", "nul\x00.wav", "..")
    )
    edge, content = b"edge", draw.choice((b"", b"RIFF", b"<script>", b"\0" * 100_000))
    field = draw.choice((b"files", b"file", b""))
    head = b'Content-Disposition: form-data; name="%s"; filename="%s"' % (field, name.encode())
    part = b"--" + edge + b"\r\n" + head + b"\r\nContent-Type: audio/wav\r\n\r\n" + content + b"\r\n"
    whole = draw.choice((part + b"--edge--\r\n", part, part * 50 + b"--edge--\r\n", part[2:], content, b"--edge--\r\n"))
    kind = draw.choice(
        ("multipart/form-data; boundary=edge",) * 4 + ("multipart/form-data", "multipart/form-data; boundary=")
    )
    route = draw.choice(("upload", "upload", "upload?upload_id=../../x", "process_recording", "component_server"))
    return Attempt(method="POST", path=f"{API}/{route}", content=whole, headers={"content-type": kind})


def _sessions(draw: Random, place: Place) -> Attempt:
    """Queue requests in a wrong order: unknown events, unknown functions, session names that are not text."""
    session = draw.choice(("", "x", "../..", "\0", 1, None, [], {}, "s" * 100_000, "\ud800", True))
    index = draw.choice((0, -1, 10**6, None, "0", 1.5, [], 2**70))
    route, body = draw.choice(
        (
            ("queue/join", {"fn_index": index, "session_hash": session, "data": []}),
            ("queue/join", {"fn_index": index, "session_hash": session, "data": [{"path": str(place.secret)}]}),
            ("queue/join", {"data": [], "trigger_id": index, "event_data": session}),
            ("cancel", {"session_hash": session, "fn_index": index, "event_id": session}),
            ("reset", {"event_id": session}),
            ("component_server", {"data": [], "component_id": index, "session_hash": session, "fn_name": "__init__"}),
            ("component_server", {"data": "/", "component_id": 1, "session_hash": "x", "fn_name": "postprocess"}),
            ("run/generate", {"data": [], "session_hash": session}),
            ("run/nothing", {"data": []}),
            ("api/settings", {"data": [session], "fn_index": index}),
            ("stream/x", {"data": [], "session_hash": session}),
        )
    )
    return Attempt(method="POST", path=f"{API}/{route}", content=json.dumps(body).encode())


def _routes(draw: Random, place: Place) -> Attempt:
    """Endpoints that the framework has and the page does not use, with wrong methods."""
    path = draw.choice(
        (
            *("call/nothing", "call/v2/nothing", "call/../info", "call/generate/nothing", "queue/data?session_hash=x"),
            *("queue/data", "deep_link?session_hash=x", "vibe-edit", "vibe-code", "dev/reload", "run-history/buckets"),
            *("run-history/records?limit=-1", "run-history/connect", "runs", "upload_progress", "token", "app_id"),
            *("info?all_endpoints=true", "info?page=../..", "openapi.json", "profiling/traces", "startup-events"),
            *(
                "custom_component/x/client/component/../../../../etc/passwd",
                "stream/x/y/z/playlist.m3u8",
                "login_check",
            ),
        )
    )
    root = draw.choice((API, API, ""))
    method = draw.choice(("GET", "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"))
    return Attempt(method=method, path=f"{root}/{path}", content=b"{}" if method == "POST" else b"")


KINDS: tuple[Callable[[Random, Place], Attempt], ...] = (
    _values,
    _values,
    _count,
    _body,
    _file_inputs,
    _file_addresses,
    _uploads,
    _sessions,
    _routes,
    _file_addresses,
)


def elsewhere(place: Place) -> tuple[str, ...]:
    """Paths that the server does not serve, or that lead outside its folders."""
    secret = str(place.secret)
    return (
        *(secret, f"{place.out}/../{place.secret.parent.name}/{place.secret.name}", f"{place.out}/./..{secret}"),
        *("/etc/passwd", "../" * 20 + "etc/passwd", "/proc/self/environ", "/proc/self/fd/0", "/dev/zero", "~/.bashrc"),
        *(".", "/", f"{secret}\0.wav"),
    )


def _fields(draw: Random, place: Place) -> tuple[str, dict[str, Any]]:
    endpoint = draw.choice(("generate", *place.endpoints))
    fields = dict(place.endpoints[endpoint])
    return endpoint, fields | {name: value for name, value in SMALL_SONG.items() if name in fields}


def _call(endpoint: str, body: Any) -> Attempt:
    return Attempt(method="POST", path=f"{API}/call/{endpoint}", content=json.dumps(body).encode(), endpoint=endpoint)
