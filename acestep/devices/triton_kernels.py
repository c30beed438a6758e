"""Whether kernels of our own that Triton compiles can be expected to run."""

from importlib.util import find_spec

from acestep.hardware.card import Card, CardKind
from acestep.limits.fallbacks import TRITON_CAPABILITY


def triton_is_installed() -> bool:
    """Whether Triton can be imported; it comes with PyTorch's CUDA build for Linux, and not with that for Windows."""
    return find_spec("triton") is not None


def runs_triton(card: Card) -> bool:
    """Whether it is installed and the card is new enough; our kernels are for NVIDIA cards."""
    return card.kind is CardKind.CUDA and card.capability >= TRITON_CAPABILITY and triton_is_installed()
