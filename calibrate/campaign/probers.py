"""Chooses the prober: the card in this machine, or the simulated one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from acestep.checkpoints import catalog
from acestep.checkpoints.locate import locate_companion
from acestep.errors import InvalidInputError, NotMeasuredError
from acestep.hardware import card as hardware
from acestep.hardware.card import SIMULATED_CAPABILITY, Card
from acestep.hardware.detection import detect
from acestep.knobs import Backend, Knobs, Variant
from acestep.limits.machine import installed
from calibrate.campaign.boundary import SIMULATED, Method
from calibrate.executors.alone import Alone
from calibrate.executors.base import Executor
from calibrate.executors.local import Local, usable_processes
from calibrate.probes.base import CapMethod, Prober
from calibrate.record.measurement import UNCONDITIONED, CardConditions, RecordedCard, RecordedCardKind
from calibrate.search import WORST_SPURIOUS_RATE
from calibrate.table.choice import PROBED
from calibrate.table.knobs import eager
from calibrate.workload import Workload

IMAGINED = Card(kind=hardware.CardKind.CUDA, name="simulated card", capability=SIMULATED_CAPABILITY)
"""The card that the simulated prober stands for; it has no size of its own."""


def prober_for(device: str, vae_chunk: int = 0, method: CapMethod = CapMethod.FRACTION) -> Prober:
    """Return the prober of a device, `cuda` or `simulated`; raise `NotMeasuredError` if there is no card.

    The simulated one decodes in tiles of `vae_chunk` latent frames, or as the pipeline chooses if that is 0. A real one
    is capped by `method`.
    """
    if device == RecordedCardKind.SIMULATED:
        from calibrate.probes.simulated.prober import SimulatedProber

        return SimulatedProber(vae_chunk)
    if not hands_descriptors_on():
        raise NotMeasuredError(
            "a real card is measured from Linux or from WSL, because Windows lacks what the measuring processes need;"
            " use `--device simulated` here"
        )
    from calibrate.probes.cuda import CudaProber

    return CudaProber(method)


def simulation_of(card: RecordedCard) -> Prober:
    """Return the simulated prober with the kernels of a measured card."""
    from calibrate.probes.simulated.prober import SimulatedProber

    if not any(card.capability):
        raise InvalidInputError("card.compute_capability", f"must be such as 8.6, got {card.compute_capability!r}")
    return SimulatedProber(capability=card.capability)


def hands_descriptors_on() -> bool:
    """Return whether a child process can inherit an open socket by its number, which the processes of probes need."""
    return os.name == "posix"


@contextmanager
def executor_for(device: str, method: CapMethod) -> Iterator[Executor]:
    """The executor of a campaign; all its processes have ended when the context is left."""
    several = device == RecordedCardKind.SIMULATED and hands_descriptors_on()
    executor: Executor = Local(usable_processes()) if several else Alone(prober_for(device, method=method))
    try:
        yield executor
    finally:
        executor.close()


def backends_of(device: str, models: Sequence[str]) -> tuple[Backend, ...]:
    """Return the backends on which a device can probe language models; a real card runs vLLM on real weights only."""
    if device == RecordedCardKind.SIMULATED or (installed("vllm") and all(map(_is_here, models))):
        return PROBED
    return (Backend.PT,)


def has_cuda_card() -> bool:
    """Return whether probes can run on a real card here, without importing torch."""
    return hands_descriptors_on() and detect(os.environ).kind is hardware.CardKind.CUDA


def introduction(answering: Prober | Executor, variant: Variant) -> str:
    """Return a sentence about the prober and the weights."""
    from calibrate.probes.cuda import CudaProber

    prober = answering.prober if isinstance(answering, Alone) else answering
    if not isinstance(prober, CudaProber):
        return f"Probes run on a {prober.device} card of compute capability {_capability(IMAGINED)}; nothing is timed."
    weights = "dummy weights of full size" if prober.model_for(Knobs(variant=variant)) == "dummy" else "weights on disk"
    return f"Probes run on {prober.card.name} with the {weights} of {variant}."


def card_of(executor: Executor) -> Card:
    """Return the card of an executor."""
    from calibrate.probes.cuda import CudaProber

    if isinstance(executor, Alone) and isinstance(executor.prober, CudaProber):
        return executor.prober.card
    return IMAGINED


def identity_of(card: Card) -> str:
    """Return an identity that two cards share only if their answers are interchangeable in a journal."""
    return " ".join([card.name, f"{card.total_bytes} bytes", f"driver {card.driver or 'none'}"])


def recorded_card(executor: Executor) -> RecordedCard:
    """Return the card of an executor in the form of a record."""
    kind, card = RecordedCardKind(executor.device), card_of(executor)
    return RecordedCard(
        kind=kind, name=card.name[:80], compute_capability=_capability(card), total_bytes=card.total_bytes
    )


def conditions_of(executor: Executor) -> CardConditions:
    """Return the conditions of the probes so far."""
    from calibrate.probes.cuda import ChildProber

    if not (isinstance(executor, Alone) and isinstance(executor.prober, ChildProber)):
        return UNCONDITIONED
    now = executor.prober.conditions
    return CardConditions(
        watched=now.watched,
        foreign_bytes=now.foreign_bytes,
        context_bytes=now.context_bytes,
        allocator=now.allocator[:80],
        returned_s=round(now.returned_s, 3),
    )


def spurious_rate_of(device: str) -> float:
    """Return the largest share of runs that would fit but end out of memory."""
    return SIMULATED.spurious_rate if device == RecordedCardKind.SIMULATED else WORST_SPURIOUS_RATE


def method_for(device: str) -> Method:
    """Return how a campaign asks a device: a real card may be wrong, and a simulation forecasts where to look."""
    if device == RecordedCardKind.SIMULATED:
        return SIMULATED
    from calibrate.probes.simulated.prober import SimulatedProber

    simulated = SimulatedProber()

    @cache
    def forecast(knobs: Knobs, workload: Workload) -> int:
        try:
            return simulated.smallest_caps(eager(knobs), workload)["total"]
        except NotMeasuredError:
            return 0

    return Method(spurious_rate=spurious_rate_of(device), forecast=forecast)


def _is_here(model: str) -> bool:
    folder = catalog.checkpoints_dir()
    try:
        locate_companion(f"acestep-5Hz-lm-{model}", folder, folder)
    except InvalidInputError:
        return False
    return True


def _capability(card: Card) -> str:
    return ".".join(str(part) for part in card.capability)
