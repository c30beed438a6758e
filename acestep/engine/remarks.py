"""Warnings about the model and the audio of a request, before it is made."""

from acestep.checkpoints.components import Components
from acestep.knobs import Variant
from acestep.limits.plan import Plan
from acestep.request import BASE_TASKS, Request


def remarks_on(request: Request, plan: Plan, components: Components) -> list[str]:
    """Warnings for the user about the loaded model and the given audio."""
    clips = [clip for clip in (request.source_audio, request.reference_audio) if clip is not None]
    remarks = [remark for clip in clips for remark in clip.remarks]
    if request.task in BASE_TASKS and plan.variant not in (Variant.BASE, Variant.XL_BASE):
        remarks.append(f"Only the base models were trained to {request.task}; {plan.variant} may ignore the task.")
    if components.is_noise:
        remarks.append(f"The {components.is_noise} model has random weights: the songs are noise, not music.")
    return remarks
