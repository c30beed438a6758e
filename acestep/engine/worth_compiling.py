"""Whether compiling the transformer pays in a process that makes the songs of one request and ends."""

from typing import Final

import msgspec
from msgspec import UNSET

from acestep.dit.sampler import guidance_for, steps_for
from acestep.limits.plan import Overrides, Plan
from acestep.request import DEFAULT_DURATION_S, Request

PAYING_S: Final = 1_900
"""Seconds of music, times passes through the transformer, from which on compiling takes less time than it saves.

It takes 1.1 s of the processor's time where an earlier process has kept its kernels, and 6.5 s the first time
(BENCHMARK.md). By the bytes that it no longer moves it saves 1.2 s of a song of 240 s in 8 passes on an RTX 3060,
estimated, and less on a faster card.
"""


def compiled_where_it_pays(plan: Plan, wishes: Overrides, request: Request) -> Plan:
    """Return the plan without compiling if the request is too short to gain from it, and it was not asked for.

    INT8 weights are always compiled: uncompiled, each use of a weight unpacks it in memory.
    """
    if wishes.compile is not UNSET or not plan.compile or plan.quantization is not None:
        return plan
    guided = guidance_for(plan.variant, request.guidance_scale) > 1
    passes = steps_for(plan.variant, request.steps) * (1 + guided)
    music_s = request.batch * (request.duration_s or DEFAULT_DURATION_S)
    return msgspec.structs.replace(plan, compile=passes * music_s >= PAYING_S)
