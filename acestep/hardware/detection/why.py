"""Why torch uses no card although one is here, in a sentence that says what to do. Pure."""

from collections.abc import Sequence

from acestep.hardware.card import Card, CardKind
from acestep.hardware.detection.answers import Answer, Source
from acestep.hardware.detection.torch_build import TorchBuild

_NO_CARD = ("no NVIDIA driver", "No CUDA GPUs", "No HIP GPUs", "finds no card")
"""Torch's texts on a machine that has no card."""

_HIDING = {
    CardKind.CUDA: ("CUDA_VISIBLE_DEVICES",),
    CardKind.ROCM: ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    CardKind.XPU: ("ZE_AFFINITY_MASK",),
}

_NEEDED = {CardKind.CUDA: "CUDA", CardKind.ROCM: "ROCm", CardKind.XPU: "Intel GPUs (XPU)", CardKind.MPS: "macOS"}


def why_not(
    torch: Answer | None, answers: Sequence[Answer], known: Sequence[Card], build: TorchBuild | None
) -> str | None:
    """Return the cause and the remedy; None if a card can be used, or if there is none and nothing is wrong.

    `known` are the visible cards of the other sources. If torch was not asked, its `build` and the driver's answer
    decide.
    """
    version = "torch" if build is None else f"torch {build.version}"
    cards = ", ".join(dict.fromkeys(card.name for card in known))
    if build is not None and known and not any(card.kind in build.kinds for card in known):
        kinds = " or ".join(dict.fromkeys(_NEEDED[card.kind] for card in known))
        return (
            f"{version} is built for {build.built_for} and cannot use {cards}: songs are computed on the CPU."
            f" Install a torch that is built for {kinds}."
        )
    if sentence := _too_old(answers, known, build):
        return sentence
    said = " ".join(problem.sentence for problem in torch.problems) if torch else ""
    if "too old" in said:
        return f"The NVIDIA driver is too old for {version}: songs are computed on the CPU. Update the driver. ({said})"
    if known:
        allowed = " Your user must be in the groups render and video." if _is_amd(known) else ""
        unused = (
            f"{cards} is here and torch does not use it: songs are computed on the CPU. {said}{allowed} Restart the"
            " machine, and look at what `acestep doctor` says."
        )
        return None if torch is None else unused
    if hidden := [card.name for answer in answers for card in answer.hidden]:
        names = ", ".join(dict.fromkeys(hidden))
        return (
            f"{names}: hidden by the environment ({_variables(answers)}), so songs are computed on the CPU."
            " Unset the variable, or name a card in it, by a number from 0 on or by its UUID."
        )
    if said and not any(phrase in said for phrase in _NO_CARD):
        return f"{said} Songs are computed on the CPU."
    return None


def _is_amd(known: Sequence[Card]) -> bool:
    return any(card.kind is CardKind.ROCM for card in known)


def _variables(answers: Sequence[Answer]) -> str:
    """The environment variables that could hide the hidden cards."""
    kinds = {card.kind for answer in answers for card in answer.hidden}
    return ", ".join(name for kind, names in _HIDING.items() if kind in kinds for name in names)


def _too_old(answers: Sequence[Answer], known: Sequence[Card], build: TorchBuild | None) -> str | None:
    """CUDA guarantees that a driver runs every program of its own major version and of older ones."""
    if build is None or not build.cuda or not any(card.kind is CardKind.CUDA for card in known):
        return None
    driver = next((answer.driver_cuda for answer in answers if answer.source is Source.NVML), (0, 0))
    major = build.cuda.partition(".")[0]
    if not driver[0] or not major.isdecimal() or driver[0] >= int(major):
        return None
    named = next((card.driver for card in known if card.driver), "")
    return (
        f"The NVIDIA driver {named} is too old for torch {build.version}: it runs CUDA up to {driver[0]}.{driver[1]},"
        f" and this torch is built for CUDA {build.cuda}: songs are computed on the CPU."
        f" Update the driver, or install a torch built for CUDA {driver[0]}."
    )
