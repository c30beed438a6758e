"""Chooses the prober: the card in this machine, or the simulated one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from random import Random
from threading import Lock
from typing import TYPE_CHECKING

from acestep.adapters.choice import Adapter
from acestep.budgets import System
from acestep.checkpoints import catalog
from acestep.checkpoints.locate import locate_companion
from acestep.errors import InvalidInputError, NotMeasuredError
from acestep.hardware import card as hardware
from acestep.hardware.card import SIMULATED_CAPABILITY, Card
from acestep.hardware.detection import detect
from acestep.knobs import Backend, Knobs, Variant
from acestep.limits.capabilities import TorchRelease, torch_release
from acestep.limits.machine import installed
from calibrate.campaign.boundary import SIMULATED, Method
from calibrate.executors.alone import CardAlone, SimulationAlone
from calibrate.executors.base import Executor
from calibrate.executors.local import Local, usable_processes, worker_for
from calibrate.probes.base import SIMULATED_CARD, CapMethod, Simulation
from calibrate.record.measurement import RecordedCard, RecordedCardKind
from calibrate.search import WORST_SPURIOUS_RATE
from calibrate.table.choice import PROBED
from calibrate.table.knobs import eager
from calibrate.workload import Workload

if TYPE_CHECKING:
    from calibrate.probes.simulated.prober import SimulatedProber


_ONE_SIMULATION = Lock()
"""A simulation changes functions of torch while it runs, and campaigns of several cards are threads of one process."""


def alone_on(
    device: str,
    method: CapMethod = CapMethod.FRACTION,
    *,
    in_float32: bool = False,
    system: System = System.LINUX,
) -> CardAlone | SimulationAlone:
    """The executor in this process of a device, `cuda` or `simulated`; a real card is capped by `method`.

    `in_float32` accepts a card that computes in float32, of which no table is made. A simulated card runs under
    `system`. Raises `NotMeasuredError` if there is no card to ask.
    """
    if device == RecordedCardKind.SIMULATED:
        return SimulationAlone(simulation(system=system))
    if not passes_descriptors():
        raise NotMeasuredError(
            "a real card is measured from Linux or from WSL, because Windows lacks what the measuring processes need;"
            " use `--device simulated` here"
        )
    from calibrate.probes.cuda import CudaProber

    return CardAlone(CudaProber(method, in_float32=in_float32))


def simulation(
    vae_chunk: int = 0,
    sample: Random | None = None,
    capability: tuple[int, int] = SIMULATED_CAPABILITY,
    system: System = System.LINUX,
    torch_is: TorchRelease | None = None,
    adapters: Sequence[Adapter] = (),
) -> "SimulatedProber":
    """The simulated prober. It decodes in tiles of `vae_chunk` latent frames; 0 leaves them to the pipeline.

    `sample` chooses the calls that are computed although they look like earlier ones, to see whether they are alike;
    `capability` and `system` are those of the card, whose kernels of the PyTorch release `torch_is` it has.
    Songs are made with the `adapters`.
    """
    from calibrate.probes.simulated.kernels import kernels_on
    from calibrate.probes.simulated.prober import SimulatedProber

    return SimulatedProber(
        vae_chunk, sample=sample, kernels=kernels_on(system, capability, torch_is), adapters=adapters
    )


def simulation_of(card: RecordedCard, torch_version: str) -> Simulation:
    """The simulated prober, with the kernels of a card that was measured with a version of PyTorch."""
    if not any(card.capability):
        raise InvalidInputError("card.compute_capability", f"must be such as 8.6, got {card.compute_capability!r}")
    return simulation(capability=card.capability, system=card.system, torch_is=torch_release(torch_version))


def simulation_beside(card: Card) -> tuple[Simulation, bool]:
    """The simulated prober with the kernels of a card in this machine, and whether flash attention is among them."""
    import torch

    from calibrate.probes.simulated.kernels import CudnnKernels
    from calibrate.probes.simulated.prober import SimulatedProber

    kernels = CudnnKernels(
        card.capability,
        flash=torch.backends.cuda.is_flash_attention_available(),
        triton=installed("triton"),
        torch_is=torch_release(torch.__version__),
    )
    return SimulatedProber(kernels=kernels), kernels.has_flash


def passes_descriptors() -> bool:
    """Return whether a child process can inherit an open socket by its number, which the processes of probes need."""
    return os.name == "posix"


@contextmanager
def executor_for(
    device: str, method: CapMethod, system: System = System.LINUX, card: Card = SIMULATED_CARD
) -> Iterator[Executor]:
    """The executor of a campaign; all its processes have ended when the context is left.

    `card` is the one that is simulated.
    """
    executor: Executor
    if device != RecordedCardKind.SIMULATED:
        executor = alone_on(device, method=method)
    elif passes_descriptors():
        executor = Local(usable_processes(), worker_for(system, card.capability), card)
    else:
        executor = SimulationAlone(simulation(capability=card.capability, system=system), card)
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
    return passes_descriptors() and detect(os.environ).kind is hardware.CardKind.CUDA


def introduction(executor: Executor, variant: Variant, system: System = System.LINUX) -> str:
    """Return a sentence that names the card and the weights of the probes."""
    from calibrate.probes.cuda import model_of

    card = executor.card
    if executor.device == RecordedCardKind.SIMULATED:
        under = " under Windows" if system is System.WINDOWS else ""
        return f"Probes run on a simulated card of compute capability {_capability(card)}{under}; nothing is timed."
    weights = "dummy weights of full size" if model_of(variant) == "dummy" else "weights on disk"
    return f"Probes run on {card.name} with the {weights} of {variant}."


def recorded_card(executor: Executor, system: System = System.LINUX, serials: tuple[str, ...] = ()) -> RecordedCard:
    """The card that answers under a system, as a record names it, with digests of all cards of a fleet."""
    kind, card = RecordedCardKind(executor.device), executor.card
    return RecordedCard(
        kind=kind,
        name=card.name[:80],
        compute_capability=_capability(card),
        total_bytes=card.total_bytes,
        driver=card.driver[:80],
        uuid=card.uuid[:80] if kind is RecordedCardKind.VIRTUAL else "",
        system=system,
        serials=serials,
    )


def spurious_rate_of(device: str) -> float:
    """Return the highest rate of runs that fit and end out of memory all the same; 0 except on a real card."""
    return WORST_SPURIOUS_RATE if device == RecordedCardKind.CUDA else SIMULATED.spurious_rate


def method_for(device: str) -> Method:
    """Return how a campaign asks a device: a real card may be wrong, and a simulation forecasts where to look."""
    if device == RecordedCardKind.SIMULATED:
        return SIMULATED
    simulated = simulation()

    @cache
    def forecast(knobs: Knobs, workload: Workload) -> int:
        try:
            with _ONE_SIMULATION:
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
