"""The evidence of a cell, and the rule that gives it its kind."""

from acestep.evidence import Evidence, EvidenceKind
from acestep.tiers import Tier
from calibrate.table.proven import LmEstimate, ProvenTier

VLLM_BESIDE = "A probe below has its language model on vLLM, whose memory is computed from its rules, not run."
"""The sentence for a field that is not a limit with a language model, but was decided by one."""


def probe_evidence(cell: str, tier: Tier) -> Evidence | None:
    """Return the entry of a row's `evidence` for a cell: that of the longest matching path; None without one."""
    field, _, rest = cell.partition(".")
    if field == "evidence":
        return tier.evidence[rest]
    if field == "boundaries":
        cell = "lm_models" if rest.startswith("lm.") else "offload"
    return tier.evidence_for(cell)


def weakest(found: list[Evidence]) -> Evidence:
    """The one of the weakest kind."""
    return max(found, key=lambda evidence: list(EvidenceKind).index(evidence.kind))


def rule_of(kind: EvidenceKind, row: ProvenTier | None) -> str:
    """The rule for a kind; `row` is the proven tier, None for what policy.json decides."""
    if kind is EvidenceKind.POLICY or row is None:
        return "This is decided in policy.json, not measured."
    if kind is not EvidenceKind.ESTIMATED:
        return f"The pipeline {_RAN[kind]}"
    rest = f"Everything else {_RAN[row.record.evidence]}"
    if row.lm_estimate is LmEstimate.VLLM_COMPUTED:
        return (
            "vLLM did not run. What it takes is computed from its own rules: the weights, a pool of keys and values for"
            f" every song, and the activations of its largest forward. {rest}"
        )
    return (
        f"No probe of this record ran a language model on {row.decided.backend}, the tier's own backend; other backends"
        f" stand for it. {rest}"
    )


_RAN = {
    EvidenceKind.SIMULATED: "ran at full size on a simulated card; no real card has confirmed it yet.",
    EvidenceKind.VIRTUAL: "ran at full size with PyTorch's CUDA build on a virtual card, which has memory and computes"
    " nothing; no real card has confirmed it yet.",
    EvidenceKind.MEASURED: "ran on a real card under the cap.",
}
