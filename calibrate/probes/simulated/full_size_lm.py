"""Language models of full size for simulations, and a token chooser for meta tensors, which have no logits."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from acestep.checkpoints.lm import LanguageModel, build_lm, quantize_lm
from acestep.knobs import Quantization
from acestep.lm.sampling import Draft, Spans
from calibrate.probes.simulated.host import rest_on_host


class FirstAllowed:
    """A chooser that ignores logits and takes the first allowed token."""

    def choose(self, logits: Tensor, spans: Spans, drafts: Sequence[Draft]) -> list[int]:  # noqa: ARG002 the protocol's
        """Return the lowest allowed id of each draft."""
        # Whatever chooses waits for the logits. How many of them it copies is its own affair.
        logits[:0].cpu()
        return [draft.allowed.spans[0].start for draft in drafts]


@cache
def full_size_lm(lm_id: str, quantization: Quantization | None) -> LanguageModel:
    """Prepared weights of full size on the host, one set for the lifetime of the process."""
    model = build_lm("dummy", lm_id, dtype=torch.bfloat16, materialise="meta")
    if quantization is not None:
        quantize_lm(model, quantization)
    rest_on_host([model.module])
    return model
