"""What to do about the cards of a machine, for `acestep doctor`. Pure."""

from acestep.hardware.detection.answers import Source
from acestep.hardware.detection.reconcile import Detection
from acestep.hardware.detection.torch_build import TorchBuild

NO_CARD = (
    "No graphics card was found, so songs are computed on the CPU. If this machine has one, install its driver; in a"
    " container, pass the card in (docker run --gpus all)."
)

ASK_TORCH = "torch was not asked, which takes seconds: acestep doctor --ask-torch asks it for its cards."


def about_cards(found: Detection, build: TorchBuild | None) -> list[str]:
    """Return what a run would warn of, then what each source lacks, then the advice to ask torch, if it helps."""
    advice = list(found.remarks)
    if not found.cards and not advice:
        advice.append(NO_CARD)
    for answer in found.answers:
        lacking = (problem for problem in answer.problems if problem.advice and str(problem) not in advice)
        advice += [f"{answer.source}: {problem}" for problem in lacking]
    could_know = found.cards or (build is not None and (build.cuda or build.hip or build.xpu))
    if could_know and not any(answer.source is Source.TORCH for answer in found.answers):
        advice.append(ASK_TORCH)
    return advice
