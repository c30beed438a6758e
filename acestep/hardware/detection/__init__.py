"""Which cards are here, and which one is used: every source is asked, and a failing source never ends a command.

NVML and the system's files answer in milliseconds. Torch is asked where a command loads it anyway: only cards that
torch lists can be used.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from acestep.hardware.card import Card
from acestep.hardware.detection.answers import Answer
from acestep.hardware.detection.apple import ask_apple
from acestep.hardware.detection.choose import DEVICE_VARIABLE, LM_DEVICE_VARIABLE
from acestep.hardware.detection.drm import ask_drm
from acestep.hardware.detection.nvidia_files import ask_nvidia_files
from acestep.hardware.detection.nvml import ask_nvml
from acestep.hardware.detection.reconcile import Detection, reconcile
from acestep.hardware.detection.torch_build import TorchBuild, installed_build
from acestep.hardware.detection.torch_cards import ask_torch

__all__ = ["DEVICE_VARIABLE", "LM_DEVICE_VARIABLE", "Answer", "Detection", "cheap_sources", "detect", "look"]

_LOG = logging.getLogger(__name__)

Ask = Callable[[], Answer]


def cheap_sources(environ: Mapping[str, str]) -> tuple[Ask, ...]:
    """The sources that need no torch, the most complete one first."""
    return (
        partial(ask_nvml, environ),
        partial(ask_nvidia_files, environ),
        partial(ask_drm, environ),
        ask_apple,
    )


def look(
    environ: Mapping[str, str] = os.environ,
    *,
    torch: Any = None,
    ask_child: bool = False,
    sources: Sequence[Ask] | None = None,
    build: Callable[[], TorchBuild | None] | None = None,
) -> Detection:
    """Ask every source; also a loaded `torch` if given, or with `ask_child` a torch in a separate process.

    Raises `UsageError` if `ACESTEP_DEVICE` (on the command line `--device`) or `ACESTEP_LM_DEVICE` (`--lm-device`)
    names no visible card.
    """
    answers = [ask() for ask in (cheap_sources(environ) if sources is None else sources)]
    if torch is not None:
        answers.append(ask_torch(torch))
    elif ask_child:
        from acestep.hardware.detection.torch_child import ask_torch_in_child

        answers.append(ask_torch_in_child(environ))
    for answer in answers if _LOG.isEnabledFor(logging.INFO) else ():
        _LOG.info("asked %s (%s): %s", answer.source, answer.asked, answer.heard)
    return reconcile(
        answers, (build or installed_build)(), environ.get(DEVICE_VARIABLE), environ.get(LM_DEVICE_VARIABLE)
    )


def detect(environ: Mapping[str, str]) -> Card:
    """The card that a run would use here, found without torch; `CPU` where there is none."""
    return look(environ).card
