"""`acestep serve` from its start to its end, and the commands of the README."""

import gc
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile

from acestep.errors import Exit, UsageError
from acestep.http_api.serve import serve_api
from acestep.http_api.song_folders import MARK
from acestep.limits.plan import Overrides
from acestep.serving.port import open_port, port_of
from tests.api_server import PATIENCE_S, Api

ROOT = Path(__file__).parents[2]
HOW: dict[str, Any] = {
    "model": "tiny",
    "overrides": Overrides(),
    "adapters": (),
    "server_name": "127.0.0.1",
    "tokens": ("t" * 16,),
    "alone": False,
    "hosts": (),
    "init_service": True,
    "notify": lambda sentence: None,
}


def test_an_interrupt_in_the_middle_of_a_song_ends_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_CUDA_VRAM", "4")
    (tmp_path / "temp").mkdir()
    left_behind = tmp_path / "out" / ("0" * 32)
    left_behind.mkdir(parents=True)
    (left_behind / MARK).touch()
    os.utime(left_behind, (0, 0))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    # This process keeps what it has frozen.
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "unfreeze", lambda: None)
    addresses: list[str] = []

    def interrupt(address: str) -> None:
        addresses.append(address)
        client = Api(address, "t" * 16)
        client.upload("x.wav", b"x")
        client.until(client.ask(duration_s=200, steps=200)["id"], "running", stage="denoise")
        client.http.close()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve_api(**HOW, out=tmp_path / "out", port=0, announce=interrupt)
    with pytest.raises(httpx.ConnectError):
        httpx.get(addresses[0])
    assert list((tmp_path / "temp").iterdir()) == []
    assert list((tmp_path / "out").iterdir()) == []


def test_a_port_that_is_in_use_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with open_port("127.0.0.1", 0, "test") as taken, pytest.raises(UsageError, match="--port") as refused:
        serve_api(**HOW, out=tmp_path / "out", port=port_of(taken), announce=lambda _: None)
    assert "the server cannot be opened" in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.soak
def test_the_commands_of_the_readme_work_and_sigterm_ends_the_server(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None or shutil.which("curl") is None:
        pytest.skip("bash or curl is not installed")
    (tmp_path / "temp").mkdir()
    server = subprocess.Popen(
        [sys.executable, "-m", "acestep", "serve", "--model", "tiny", "--port", "0"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temp"), "MAX_CUDA_VRAM": "4"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stderr is not None
    address = server.stdout.readline().strip()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"```bash\n(id=\$\(curl.*?)```", readme, re.DOTALL)
    assert len(commands.splitlines()) == 3
    done = subprocess.run(
        [bash, "-ec", commands.replace("http://127.0.0.1:8001", address)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert "event: finished" in done.stdout
    (song,) = tmp_path.glob("slow-piano-*.flac")
    assert soundfile.info(song).duration == 30
    started, _, _ = select.select([server.stderr], [], [], 0)
    assert not started, "the libraries print nothing"
    client = Api(address)
    client.until(client.ask(duration_s=200, steps=200)["id"], "running", stage="denoise")
    client.http.close()
    server.send_signal(signal.SIGTERM)
    _, said = server.communicate(timeout=PATIENCE_S)
    assert (server.returncode, said.strip()) == (Exit.INTERRUPTED, "interrupted")
    assert list((tmp_path / "temp").iterdir()) == []
