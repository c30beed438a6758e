"""How requests come, from the outermost call of each: a command, a call in Python, a page, a server."""

import json
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import httpx
import numpy as np
import soundfile

from acestep.clip import SAMPLE_RATE
from acestep.errors import NotMeasuredError
from acestep.stage import Stage
from acestep.units import silent
from ci.scenarios.scenario import EntryPoint, RequestKind, ScenarioRequest

_MODEL = "dummy"
"""Weights of full size; on the simulated machine they have no values."""

_STEPS = 2
"""Denoising steps of each request, as many as a probe has."""

REQUEST_SECONDS = 300
"""Longest time for one request, which takes some seconds."""

ADDRESS_SECONDS = 120
"""Longest time until a command that serves tells its address."""

POLL_S = 0.05
"""Seconds between two looks at a request to the server."""

MostOffered = dict[str, int]
"""What an entry point says that can be asked for at most."""

_FORMATS = ("wav", "flac", "mp3")
"""The formats of the songs, in turn."""

CAPTION = "slow piano, rain on a tin roof"


def by_command(asked: Sequence[ScenarioRequest], folder: Path) -> MostOffered:
    """Run `acestep generate`, or `acestep understand`, for each request."""
    for number, one in enumerate(asked):
        if one.kind is RequestKind.WORDS:
            recording = _recording(folder, number, one.duration_s)
            _acestep("understand", "--src-audio", str(recording), "--model", _MODEL, "--json")
            continue
        _acestep(
            *("generate", "--model", _MODEL, "--caption", CAPTION, "--lyrics", one.lyrics, "--seed", str(number)),
            *("--language", one.language, "--duration", f"{one.duration_s:g}", "--batch", str(one.batch)),
            *("--steps", str(_STEPS), "--think" if one.think else "--no-think", "--format", _format(number)),
            *("--out", str(folder / "out"), "--json"),
        )
    return {}


def by_python(asked: Sequence[ScenarioRequest], folder: Path) -> MostOffered:  # noqa: ARG001 every entry point has a folder
    """Ask one service for all songs, each under the plan for it."""
    from acestep.devices.open import plan_to_run
    from acestep.engine.service import Service
    from acestep.request import Request

    with closing(Service(_MODEL)) as service:
        for number, one in enumerate(asked):
            usual: dict[str, Any] = {
                "caption": CAPTION,
                "lyrics": one.lyrics,
                "language": one.language,
                "duration_s": one.duration_s,
            }
            usual |= {"batch": one.batch, "think": one.think, "seed": number, "steps": _STEPS}
            request = Request(**(usual | options_of(one)))
            progress = _stop if one.kind is RequestKind.STOPPED else silent
            with suppress(_StoppedError):
                service.generate(request, plan_to_run(request=request), progress=progress)
            if one.kind is RequestKind.STOPPED:
                service.rest()
    return {}


def _recording(folder: Path, number: int, seconds: float) -> Path:
    """Write a recording of silence, and return its path."""
    path = folder / f"{number}.wav"
    soundfile.write(path, np.zeros((round(seconds * SAMPLE_RATE), 2), np.float32), SAMPLE_RATE)
    return path


def options_of(asked: ScenarioRequest) -> dict[str, Any]:
    """The fields of a request of its kind that are not the default: memory must not depend on them unseen."""
    from acestep.clip import Clip
    from acestep.thinking import Sampling, Thinking

    recording = Clip(audio=np.zeros((2, round(asked.duration_s * SAMPLE_RATE)), np.float32))
    corrected = {"dcw": True, "dcw_scaler": 0.1, "dcw_high_scaler": 0.1, "shift": 2.0}
    of_kind: dict[RequestKind, dict[str, Any]] = {
        RequestKind.OTHERWISE: {
            "dcw": False,
            "shift": 1.0,
            "guidance_scale": 5.0,
            "guidance_interval": (0.2, 0.8),
            "bpm": 97,
            "keyscale": "F# minor",
            "timesignature": "3",
            "thinking": Thinking(
                metas=False,
                caption=False,
                language=False,
                negative="noise, applause",
                seed=7,
                longest_s=120,
                sampling=Sampling(temperature=0.5, top_k=50, top_p=1.0, repetition_penalty=1.1, guidance=1.0),
            ),
        },
        RequestKind.COVER: {
            "task": "cover",
            "source_audio": recording,
            "reference_audio": recording,
            "cover_strength": 0.6,
            "cover_noise": 0.4,
            **corrected,
        },
        RequestKind.REPAINT: {
            "task": "repaint",
            "source_audio": recording,
            "repaint_start_s": asked.duration_s / 4,
            "repaint_end_s": asked.duration_s / 2,
            "repaint_strength": 0.3,
            "repaint_fade_s": 0.5,
            **corrected,
        },
    }
    return of_kind.get(asked.kind, {})


class _StoppedError(Exception):
    """Raised by a user in the middle of a song."""


def _stop(stage: str, done: int, total: int) -> None:  # noqa: ARG001 as the pipeline calls it
    if stage == Stage.DENOISE and done:
        raise _StoppedError


def by_server(asked: Sequence[ScenarioRequest], folder: Path) -> MostOffered:
    """Ask `acestep serve` over HTTP."""

    def ask(client: httpx.Client) -> MostOffered:
        for number, one in enumerate(asked):
            body = {"caption": CAPTION, "lyrics": one.lyrics, "language": one.language, "seed": number}
            body |= {"duration_s": one.duration_s, "batch": one.batch, "think": one.think, "steps": _STEPS}
            body |= {"audio_format": _format(number)}
            if one.kind is RequestKind.COVER:
                recording = _recording(folder, number, one.duration_s).read_bytes()
                told = (None, json.dumps(body | {"task": "cover"}))
                asking = client.post("/v1/requests", files={"request": told, "source_audio": ("x.wav", recording)})
            else:
                asking = client.post("/v1/requests", json=body)
            said = _json(asking)
            end = time.monotonic() + REQUEST_SECONDS
            while said["state"] not in ("finished", "stopped", "failed"):
                if time.monotonic() > end:
                    raise NotMeasuredError(f"the server took over {REQUEST_SECONDS} s for a request")
                time.sleep(POLL_S)
                said = _json(client.get(f"/v1/requests/{said['id']}"))
            if said["state"] != "finished":
                raise NotMeasuredError(f"a request to the server has {said['state']}: {said.get('error')}")
        plan = _json(client.get("/v1/plan"))
        return {
            f"{name}.{state}": most for name in ("max_batch", "max_duration_s") for state, most in plan[name].items()
        }

    return _while_open(ask, "serve", "--model", _MODEL, "--port", "0", "--out", str(folder / "out"), "--init-service")


def by_page(asked: Sequence[ScenarioRequest], folder: Path) -> MostOffered:
    """Fill the form of `acestep ui` with what it starts with, and press its button, over HTTP."""

    def ask(client: httpx.Client) -> MostOffered:
        config = _json(client.get("/config"))
        shown = {part["id"]: part["props"] for part in config["components"]}
        about = next(event for event in config["dependencies"] if event["api_name"] == "generate")
        named = _json(client.get("/gradio_api/info"))["named_endpoints"]["/generate"]["parameters"]
        names = [parameter["parameter_name"] for parameter in named]
        parts = dict(zip(names, about["inputs"], strict=True))
        start = {name: shown[part].get("value") for name, part in parts.items()}
        for number, one in enumerate(asked):
            wished = {"caption": CAPTION, "lyrics": one.lyrics, "language": one.language, "seed": number}
            wished |= {"random_seed": False, "duration": one.duration_s, "batch": one.batch, "think": one.think}
            wished |= {"steps": _STEPS, "audio_format": _format(number)}
            values = [(start | wished)[name] for name in names]
            event = _json(client.post("/gradio_api/call/generate", json={"data": values}))["event_id"]
            told = client.get(f"/gradio_api/call/generate/{event}").text
            if "event: complete" not in told:
                raise NotMeasuredError(f"the page made no song: {told[-200:]}")
        return {name: shown[parts[name]]["maximum"] for name in ("batch", "duration")}

    return _while_open(ask, "ui", "--model", _MODEL, "--port", "0", "--out", str(folder / "out"), "--init-service")


ENTRY_POINTS: dict[EntryPoint, Callable[[Sequence[ScenarioRequest], Path], MostOffered]] = {
    EntryPoint.COMMAND: by_command,
    EntryPoint.PYTHON: by_python,
    EntryPoint.PAGE: by_page,
    EntryPoint.SERVER: by_server,
}


def _format(number: int) -> str:
    return _FORMATS[number % len(_FORMATS)]


def _acestep(*arguments: str) -> None:
    """Run a command of `acestep` in this process; what it prints goes nowhere."""
    from acestep.cli.main import cli

    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        cli(list(arguments), standalone_mode=False)


def _while_open(ask: Callable[[httpx.Client], MostOffered], *command: str) -> MostOffered:
    """Run a command that serves, ask it when it tells its address, and end it as Ctrl-C does.

    Raises `NotMeasuredError` where it tells none in time.
    """
    offers: list[MostOffered] = []
    here = threading.get_ident()
    late = threading.Timer(ADDRESS_SECONDS, lambda: signal.pthread_kill(here, signal.SIGINT))

    def told(message: Any = None, **_: Any) -> None:
        if str(message).startswith("http://"):
            late.cancel()
            with httpx.Client(base_url=str(message), timeout=REQUEST_SECONDS, trust_env=False) as client:
                offers.append(ask(client))
            raise KeyboardInterrupt

    with patch.object(click, "echo", told), suppress(KeyboardInterrupt, click.Abort):
        late.start()
        try:
            _acestep(*command)
        finally:
            late.cancel()
    if not offers:
        raise NotMeasuredError(f"`acestep {command[0]}` told no address in {ADDRESS_SECONDS} s")
    return offers[0]


def _json(answer: httpx.Response) -> Any:
    return answer.raise_for_status().json()
