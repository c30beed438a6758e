"""The panel about the card: what was found, its tier, and where each default comes from. Pure."""

from html import escape

from acestep.hardware import Card
from acestep.plan import Plan
from acestep.show import card_line
from acestep.tiers import BATCHES, Evidence, short_digest
from acestep.ui.settings import NONE
from acestep.ui.views import length, table_html
from acestep.ui.words import Words


def card_html(plan: Plan, device: Card, words: Words) -> str:
    """The panel for a tier's own plan, which is carried out on `device`."""
    rows = [(words("card"), card_line(plan.card), "")]
    if device != plan.card:
        rows.append((words("runs_on"), card_line(device), ""))
    rows.append((words("tier"), f"{plan.tier} ({plan.label})", words("certified", size=plan.certified_gib)))
    if plan.limits_of != plan.tier:
        rows.append((words("limits_of"), plan.limits_of, ""))
    rows += [(words(name), value, evidence(plan, field, words)) for name, value, field in _defaults(plan, words)]
    rows += [
        (words("longest", batch=batch), _lengths(plan, batch, words), evidence(plan, "frontier", words))
        for batch in BATCHES
    ]
    return f'<div class="panel"><h3>{escape(words("section_card"))}</h3>{table_html(rows)}</div>'


def evidence(plan: Plan, field: str, words: Words) -> str:
    """Where a field's value comes from, without a language model and with one where that rests on something else."""
    found = dict.fromkeys(
        _source(plan.evidence[name], words) for name in (field, f"{field}.with_lm") if name in plan.evidence
    )
    return ", ".join(found)


def _defaults(plan: Plan, words: Words) -> tuple[tuple[str, str, str], ...]:
    on_off = {True: words("on"), False: words("off")}
    none = words(f"choice_{NONE}")
    return (
        ("lm", plan.lm or none, "recommended_lm"),
        ("lm_models", ", ".join(plan.lm_models) or none, "lm_models"),
        ("init_lm", on_off[plan.init_lm], "init_lm"),
        ("backend", plan.backend, "backend"),
        ("offload", plan.offload, "offload"),
        ("quantization", plan.quantization or none, "quantization"),
        ("lm_quantization", plan.lm_quantization or none, "lm_quantization"),
        ("compile", on_off[plan.compile], "compile"),
    )


def _lengths(plan: Plan, batch: int, words: Words) -> str:
    longest = [plan.frontier.longest(batch, lm=lm) for lm in (False, True)]
    said = [length(seconds, words) if seconds else words(f"choice_{NONE}") for seconds in longest]
    return said[0] if said[0] == said[1] else words("without_and_with", without=said[0], with_lm=said[1])


def _source(source: Evidence, words: Words) -> str:
    digest = short_digest(source.record).removeprefix("sha256:")
    return " ".join(part for part in (words(f"evidence_{source.kind}"), digest) if part)
