"""`download` goes through the proxies that the environment names: real ones, on loopback."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from acestep.errors import Exit
from tests.proxy import FILES, HUB, dead_port, http_proxy, socks_proxy

Proxy = Callable[[], AbstractContextManager[tuple[str, list[str]]]]


def fetch(into: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        [sys.executable, "-m", "acestep", "download", "0.6B"],
        env=environ | {"HF_ENDPOINT": HUB, "ACESTEP_CHECKPOINTS_DIR": str(into), "HF_HUB_OFFLINE": "0"} | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("proxy", "name", "scheme"),
    [
        (http_proxy, "http_proxy", ""),
        (http_proxy, "HTTP_PROXY", "http://"),
        (http_proxy, "all_proxy", "http://me:pw@"),
        (socks_proxy, "ALL_PROXY", "socks5://"),
        (socks_proxy, "http_proxy", "socks5h://"),
    ],
)
def test_download_goes_through_a_proxy(proxy: Proxy, name: str, scheme: str, tmp_path: Path) -> None:
    with proxy() as (address, asked):
        ended = fetch(tmp_path, **{name: scheme + address})
    assert ended.returncode == Exit.OK, ended.stderr
    assert all((tmp_path / "acestep-5Hz-lm-0.6B" / file).read_bytes() == held for file, held in FILES.items())
    assert asked


@pytest.mark.parametrize("scheme", ["http://", "socks5://"])
def test_a_dead_proxy_is_named(scheme: str, tmp_path: Path) -> None:
    proxy = f"{scheme}127.0.0.1:{dead_port()}"
    ended = fetch(tmp_path, ALL_PROXY=proxy)
    assert ended.returncode == Exit.RUN_FAILED
    assert f"ALL_PROXY={proxy}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_proxy_that_refuses_is_a_sentence(tmp_path: Path) -> None:
    with http_proxy() as (address, asked):
        ended = fetch(tmp_path, HTTPS_PROXY=address, HF_ENDPOINT="https://hub.invalid")
    assert ended.returncode == Exit.RUN_FAILED
    assert any(line.startswith("CONNECT hub.invalid:443") for line in asked)
    assert "Traceback" not in ended.stderr
