"""The ways by which requests come, from the outermost call of each: a command, a call in Python, a page, a server."""

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
from ci.visits.visit import Asked, Wanted, Way

MODEL = "dummy"
"""Weights of full size; on the simulated machine they have no values."""

STEPS = 2
"""Denoising steps of each request, as many as a probe has."""

PATIENCE_S = 300
"""Longest time for one request, which takes some seconds."""

POLL_S = 0.05

Offers = dict[str, int]
"""What a way says that can be asked for at most."""

CAPTION = "slow piano, rain on a tin roof"


def by_command(asked: Sequence[Asked], folder: Path) -> Offers:
    """Run `acestep generate`, or `acestep understand`, for each request."""
    for number, one in enumerate(asked):
        if one.wanted is Wanted.WORDS:
            recording = folder / f"{number}.wav"
            soundfile.write(recording, np.zeros((round(one.duration_s * SAMPLE_RATE), 2), np.float32), SAMPLE_RATE)
            _acestep("understand", "--src-audio", str(recording), "--model", MODEL, "--json")
            continue
        _acestep(
            *("generate", "--model", MODEL, "--caption", CAPTION, "--lyrics", one.lyrics, "--seed", str(number)),
            *("--language", one.language, "--duration", f"{one.duration_s:g}", "--batch", str(one.batch)),
            *("--steps", str(STEPS), "--think" if one.think else "--no-think", "--format", "wav"),
            *("--out", str(folder / "out"), "--json"),
        )
    return {}


def by_python(asked: Sequence[Asked], folder: Path) -> Offers:  # noqa: ARG001 every way has a folder
    """Ask one service for all songs, each under the plan for it."""
    from acestep.devices.open import plan_to_run
    from acestep.engine.service import Service
    from acestep.request import Request

    with closing(Service(MODEL)) as service:
        for number, one in enumerate(asked):
            request = Request(
                caption=CAPTION,
                lyrics=one.lyrics,
                language=one.language,
                duration_s=one.duration_s,
                batch=one.batch,
                think=one.think,
                seed=number,
                steps=STEPS,
            )
            progress = _stop if one.wanted is Wanted.STOPPED else silent
            with suppress(_StoppedError):
                service.generate(request, plan_to_run(request=request), progress=progress)
            if one.wanted is Wanted.STOPPED:
                service.rest()
    return {}


class _StoppedError(Exception):
    """Raised by a user in the middle of a song."""


def _stop(stage: str, done: int, total: int) -> None:  # noqa: ARG001 as the pipeline calls it
    if stage == Stage.DENOISE and done:
        raise _StoppedError


def by_server(asked: Sequence[Asked], folder: Path) -> Offers:
    """Ask `acestep serve` over HTTP."""

    def ask(client: httpx.Client) -> Offers:
        for number, one in enumerate(asked):
            body = {"caption": CAPTION, "lyrics": one.lyrics, "language": one.language, "seed": number}
            body |= {"duration_s": one.duration_s, "batch": one.batch, "think": one.think, "steps": STEPS}
            said = _json(client.post("/v1/requests", json=body | {"audio_format": "wav"}))
            end = time.monotonic() + PATIENCE_S
            while said["state"] not in ("finished", "stopped", "failed"):
                if time.monotonic() > end:
                    raise NotMeasuredError(f"the server took over {PATIENCE_S} s for a request")
                time.sleep(POLL_S)
                said = _json(client.get(f"/v1/requests/{said['id']}"))
            if said["state"] != "finished":
                raise NotMeasuredError(f"a request to the server has {said['state']}: {said.get('error')}")
        plan = _json(client.get("/v1/plan"))
        return {
            f"{name}.{state}": most for name in ("max_batch", "max_duration_s") for state, most in plan[name].items()
        }

    return _while_open(ask, "serve", "--model", MODEL, "--port", "0", "--out", str(folder / "out"), "--init-service")


def by_page(asked: Sequence[Asked], folder: Path) -> Offers:
    """Fill the form of `acestep ui` with what it starts with, and press its button, over HTTP."""

    def ask(client: httpx.Client) -> Offers:
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
            wished |= {"steps": STEPS, "audio_format": "wav"}
            values = [(start | wished)[name] for name in names]
            event = _json(client.post("/gradio_api/call/generate", json={"data": values}))["event_id"]
            told = client.get(f"/gradio_api/call/generate/{event}").text
            if "event: complete" not in told:
                raise NotMeasuredError(f"the page made no song: {told[-200:]}")
        return {name: shown[parts[name]]["maximum"] for name in ("batch", "duration")}

    return _while_open(ask, "ui", "--model", MODEL, "--port", "0", "--out", str(folder / "out"), "--init-service")


WAYS: dict[Way, Callable[[Sequence[Asked], Path], Offers]] = {
    Way.COMMAND: by_command,
    Way.PYTHON: by_python,
    Way.PAGE: by_page,
    Way.SERVER: by_server,
}


def _acestep(*arguments: str) -> None:
    """Run a command of `acestep` in this process; what it prints goes nowhere."""
    from acestep.cli.main import cli

    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        cli(list(arguments), standalone_mode=False)


def _while_open(visit: Callable[[httpx.Client], Offers], *command: str) -> Offers:
    """Run a command that serves, visit it when it tells its address, and end it as Ctrl-C does."""
    offers: list[Offers] = []

    def told(message: Any = None, **_: Any) -> None:
        if str(message).startswith("http://"):
            with httpx.Client(base_url=str(message), timeout=PATIENCE_S, trust_env=False) as client:
                offers.append(visit(client))
            raise KeyboardInterrupt

    with patch.object(click, "echo", told), suppress(KeyboardInterrupt, click.Abort):
        _acestep(*command)
    if not offers:
        raise NotMeasuredError(f"`acestep {command[0]}` told no address")
    return offers[0]


def _json(answer: httpx.Response) -> Any:
    return answer.raise_for_status().json()
