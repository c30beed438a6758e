"""Who answers a probe: the card in this machine, or the simulated one."""

import os

from acestep import hardware
from acestep.errors import NotMeasuredError
from acestep.hardware import SIMULATED_CAPABILITY, Card, detect
from acestep.knobs import Knobs, Variant
from calibrate.probes.base import Prober
from calibrate.record import CardKind, RecordedCard

IMAGINED = Card(kind=hardware.CardKind.CUDA, name="simulated card", capability=SIMULATED_CAPABILITY)
"""What the simulated prober stands for; it has no size of its own."""


def prober_for(device: str, vae_chunk: int = 0) -> Prober:
    """The prober of a device, `cuda` or `simulated`; `NotMeasuredError` where there is no card to ask.

    The simulated one decodes in tiles of `vae_chunk` latent frames, or as the pipeline chooses where that is 0.
    """
    if device == CardKind.SIMULATED:
        from calibrate.probes.simulated.prober import SimulatedProber

        return SimulatedProber(vae_chunk)
    from calibrate.probes.cuda import CudaProber

    return CudaProber()


def has_cuda_card() -> bool:
    """Whether a probe could run on a real card here; asked without importing torch."""
    return detect(os.environ).kind is hardware.CardKind.CUDA


def introduction(prober: Prober, variant: Variant) -> str:
    """Who is about to answer, and with which weights, in a sentence."""
    from calibrate.probes.cuda import CudaProber

    if not isinstance(prober, CudaProber):
        return f"Probes run on a {prober.device} card of compute capability {_capability(IMAGINED)}; nothing is timed."
    weights = "dummy weights of full size" if prober.model_for(Knobs(variant=variant)) == "dummy" else "weights on disk"
    return f"Probes run on {prober.card.name} with the {weights} of {variant}."


def recorded_card(prober: Prober) -> RecordedCard:
    """The card that answers, as a record names it."""
    kind = CardKind(prober.device)
    card = _card(prober)
    return RecordedCard(
        kind=kind, name=card.name[:80], compute_capability=_capability(card), total_bytes=card.total_bytes
    )


def require_no_lm(knobs: Knobs) -> None:
    """Raise `NotMeasuredError` for knobs with a language model: no prober runs one yet, and none guesses."""
    if knobs.lm is not None:
        raise NotMeasuredError(
            f"language model {knobs.lm} cannot be probed yet, only the music model can; use `--lm none`"
        )


def _card(prober: Prober) -> Card:
    from calibrate.probes.cuda import CudaProber

    return prober.card if isinstance(prober, CudaProber) else IMAGINED


def _capability(card: Card) -> str:
    return ".".join(str(part) for part in card.capability)
