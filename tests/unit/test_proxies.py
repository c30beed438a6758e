"""Proxies of the environment: used by `download`, refused where they cannot be used, never for this machine."""

import os
import ssl
import urllib.request
from collections.abc import Mapping

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep import proxies
from acestep.checkpoints.download import download
from acestep.errors import Exit, RunFailedError, UsageError
from acestep.proxies import LOOPBACK, in_use, reach_directly, require_usable, shown, variable_of, without_proxies
from tests.acestep_command import Command, command

__all__ = ["command"]

CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Nothing is asked of the network here, and httpx would read the machine's for every client."""

NAMES = [spelling for kind in ("http", "https", "all", "no") for spelling in (f"{kind}_proxy", f"{kind}_proxy".upper())]
PROXIES = st.sampled_from(["", "127.0.0.1:3128", "http://proxy:8080", "https://me:pw@proxy", "socks5h://[::1]:1080"])
EXCEPTIONS = st.sampled_from(
    ["", "corp.example", "corp.example, 10.0.0.0/8", "localhost", "127.0.0.1,::1,localhost", "*"]
)


@st.composite
def environments(draw: st.DrawFn) -> dict[str, str]:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    return {name: draw(EXCEPTIONS if name.lower() == "no_proxy" else PROXIES) for name in names}


@pytest.fixture(autouse=True)
def no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def known_to_python(environ: Mapping[str, str]) -> dict[str, str]:
    """What the standard library makes of an environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        return urllib.request.getproxies_environment()


@given(environ=environments())
def test_the_variables_that_count_are_those_that_count_for_python(environ: dict[str, str]) -> None:
    known = known_to_python(environ)
    for kind in ("http", "https", "all", "no"):
        name = variable_of(kind, environ)
        assert (environ[name] if name else "") == known.get(kind, ""), kind


@given(environ=environments(), host=st.sampled_from([*LOOPBACK, "192.168.1.5"]))
def test_this_machine_is_reached_directly_and_the_users_exceptions_stay(environ: dict[str, str], host: str) -> None:
    before, had = known_to_python(environ).get("no", ""), in_use(environ)
    reach_directly((*LOOPBACK, "192.168.1.5"), environ)
    after = known_to_python(environ).get("no", "")
    assert in_use(environ) == had
    assert {entry.strip() for entry in before.split(",")} - {""} <= set(after.replace(" ", "").split(","))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        address = f"http://[{host}]:7860/" if ":" in host else f"http://{host}:7860/"
        with httpx.Client(verify=CERTIFICATES) as client:
            assert client._transport_for_url(httpx.URL(address)) is client._transport


UNREADABLE = ["[::1]:8080", "fd00::/8", "corp:port", "corp:99999", "é.example", "https://[::1", "a b", "[", "x\n"]
READABLE = ["corp.example:8080", "10.0.0.0/8", ".corp.example", "*.corp", "192.168.*", "fe80::1%eth0", "http://corp"]


@given(
    exceptions=st.lists(
        st.sampled_from([*UNREADABLE, *READABLE, "[::1]"])
        | st.text(st.characters(codec="latin-1", exclude_characters="\0,"))
    ),
    proxied=st.booleans(),
)
def test_an_exception_that_cannot_be_read_stops_nothing_and_the_others_stay(
    exceptions: list[str], proxied: bool
) -> None:
    environ = {"NO_PROXY": ",".join(exceptions)} | ({"HTTPS_PROXY": "http://proxy:1"} if proxied else {})
    reach_directly(LOOPBACK, environ)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        with httpx.Client(verify=CERTIFICATES) as client:
            assert proxied or client._transport_for_url(httpx.URL("https://hub/")) is client._transport
    after = environ["NO_PROXY"].split(",")
    kept = {"::1" if entry == "[::1]" else entry for entry in exceptions if entry in (*READABLE, "[::1]")}
    assert "*" in {entry.strip() for entry in exceptions} or kept <= set(after)


@pytest.mark.parametrize(
    ("exception", "reached", "kept"),
    [
        ("x.com:", "http://x.com/", "x.com"),
        ("http://x.com:", "http://x.com/", "x.com"),
        ("http://[::1]", "http://[::1]:7860/", "::1"),
        ("[fd00::1]:8080", "http://[fd00::1]:8080/", "fd00::1"),
        ("http://u:p@x", "http://x/", "x"),
        ("u@x.com", "http://x.com/", "x.com"),
        ("http://a:1/x", "http://a:1/", "a:1"),
        ("https://a:1/x?y#z", "https://a:1/", "a:1"),
        ("http://é.com", "http://é.com/", "all://xn--9ca.com"),
        ("é.com:81", "http://é.com:81/", "all://xn--9ca.com:81"),
    ],
)
def test_an_exception_that_is_written_as_an_address_counts_as_its_host(
    exception: str, reached: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", exception)
    monkeypatch.setenv("ALL_PROXY", "http://proxy:1")
    reach_directly((), os.environ)
    assert os.environ["NO_PROXY"] == kept
    with httpx.Client(verify=CERTIFICATES) as client:
        assert client._transport_for_url(httpx.URL(reached)) is client._transport
        assert client._transport_for_url(httpx.URL("http://other/")) is not client._transport


def test_an_exception_that_is_left_out_is_told_without_its_password(caplog: pytest.LogCaptureFixture) -> None:
    reach_directly(LOOPBACK, {"NO_PROXY": "corp,me:s3cret@corp:port"})
    assert "'***@corp:port' in NO_PROXY" in caplog.text
    assert "s3cret" not in caplog.text
    assert len(caplog.records) == 1


@given(environ=environments())
def test_inside_no_proxy_is_used_and_after_it_all_is_as_before(environ: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        before = dict(os.environ)
        with without_proxies(), httpx.Client(verify=CERTIFICATES) as client:
            assert client._mounts == {}
            assert urllib.request.getproxies() == {"no": "*"}, "the settings of the system are not asked either"
        assert dict(os.environ) == before


@given(environ=environments())
def test_what_is_usable_is_usable_for_the_library(environ: dict[str, str]) -> None:
    require_usable(environ)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        httpx.Client(verify=CERTIFICATES).close()


UNUSABLE = {
    "socks://127.0.0.1:1080": "socks5://HOST:PORT",
    "socks4://127.0.0.1:1080": "socks5://HOST:PORT",
    "ftp://proxy:21": "choose one of http, https, socks5, socks5h",
    ":foo": "http://HOST:PORT",
    "http://": "http://HOST:PORT",
    "https://:8080": "https://HOST:PORT",
    "http://[::1": "http://HOST:PORT",
    "proxy:port": "http://HOST:PORT",
    "http://proxy:99999": "http://HOST:PORT",
    "http://my proxy:8080": "http://HOST:PORT",
    "http://proxy:80\n80": "http://HOST:PORT",
    "http://proxy..example:80": "http://HOST:PORT",
    f"http://{'p' * 64}:80": "http://HOST:PORT",
    '"http://proxy:80"': "it is no kind of proxy",
}


@pytest.mark.parametrize("value", UNUSABLE)
@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy"])
def test_a_proxy_that_cannot_be_used_is_named_with_what_to_write(
    value: str, name: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("it must not be asked"))
    ended = command("download", "0.6B")
    assert ended.code == Exit.USAGE
    assert name in ended.err
    assert UNUSABLE[value] in ended.err
    assert "Traceback" not in ended.err


def test_socks_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^ALL_PROXY is 'socks5://127.0.0.1:9', .*pip install socksio"):
        require_usable({"ALL_PROXY": "socks5://127.0.0.1:9"})
    require_usable({"ALL_PROXY": "socks5://127.0.0.1:9", "no_proxy": "*"})


@pytest.mark.parametrize("value", ["http://me:s3cret@proxy:1", "me:s3cret@proxy:1", "http://me:s3cret@[bad"])
def test_passwords_are_never_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise httpx.ConnectError("refused")

    monkeypatch.setenv("HTTPS_PROXY", value)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises((UsageError, RunFailedError)) as caught:
        download("0.6B")
    assert "***@" in str(caught.value)
    assert "s3cret" not in str(caught.value) + shown(value)


def test_download_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    def fail(*_: object, **__: object) -> None:
        seen.update(os.environ)
        raise httpx.ConnectError("refused")

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("no_proxy", "[::1],fd00::/8,corp")
    before = dict(os.environ)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(RunFailedError):
        download("0.6B")
    assert seen["no_proxy"] == seen["NO_PROXY"] == "::1,corp,localhost,127.0.0.1"
    assert dict(os.environ) == before


def test_a_page_for_others_needs_a_proxy_that_can_be_used(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:1080")
    ended = command("ui", "--share", "--no-auth", "--port", "0")
    assert ended.code == Exit.USAGE
    assert "ALL_PROXY" in ended.err
