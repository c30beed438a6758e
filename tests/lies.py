"""Honest records changed by meaning: each lie could make the table promise more."""

import copy
import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from acestep.knobs import KNOBS, Variant
from acestep.tiers import BATCHES, TierTable, lm_rank
from calibrate.campaign.physics import physics
from calibrate.files import pretty_json
from calibrate.record.contributed import validate
from calibrate.record.measurement import Measurement, RecordedCardKind, load_measurement
from calibrate.record.rules import RuleLevel
from tests.damage import Document, sealed
from tests.damage_of_meaning import on_card
from tests.fakes import AnalyticProber, measured

Lie = Callable[[Document, random.Random], object]
CARDS = (
    ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "12.0", 95.0),
    ("NVIDIA H100 80GB HBM3", "9.0", 79.2),
    ("NVIDIA card that is unheard of", "9.0", 79.2),
)


def _probe(document: Document, draw: random.Random, *verdicts: str) -> Any:
    return draw.choice([p for p in document["probes"] if not verdicts or p["verdict"] in verdicts])


def _certificate(document: Document, draw: random.Random) -> Any:
    return draw.choice(document["certificates"])


def _becomes_a_fit(document: Document, draw: random.Random) -> None:
    """A failure becomes a fit with the stages of another run, and its certificate says so."""
    certificate = draw.choice([c for c in document["certificates"] if c["fails"] is not None])
    failing, donor = document["probes"][certificate["fails"]], _probe(document, draw, "fits")
    failing |= {"verdict": "fits", "stages": copy.deepcopy(donor["stages"])}
    for stage in failing["stages"]:
        stage["peak_reserved_bytes"] = min(stage["peak_reserved_bytes"], failing["cap_bytes"])
    certificate |= {"fits": certificate["fails"], "fails": None}


def _everything_fits(document: Document, draw: random.Random) -> None:
    donor = _probe(document, draw, "fits")
    for probe in document["probes"]:
        if probe["verdict"] == "oom":
            probe |= {"verdict": "fits", "stages": copy.deepcopy(donor["stages"])}
    for certificate in document["certificates"]:
        if certificate["fails"] is not None:
            certificate |= {"fits": certificate["fails"], "fails": None}


def _longer(document: Document, draw: random.Random) -> None:
    """The songs of one knobs, or of all, were longer than they were."""
    by = draw.choice((30.0, 60.0, 120.0))
    chosen = _certificate(document, draw)["knobs"]
    for probe in document["probes"]:
        if draw.random() < 0.1 or probe["knobs"] == chosen:
            probe["workload"]["duration_s"] = min(probe["workload"]["duration_s"] + by, 600.0)


def _more_songs(document: Document, draw: random.Random) -> None:
    chosen = _certificate(document, draw)["knobs"]
    for group in (document["probes"], document["certificates"]):
        for one in (one for one in group if one["knobs"] == chosen):
            work = one.get("workload", one)
            work["batch"] *= 2
            if "workload" in one:
                one["songs_per_pass"] = work["batch"]


def _smaller_cap(document: Document, draw: random.Random) -> None:
    """What ran on a large card is said to have run on a small one."""
    caps = sorted({c["cap_bytes"] for c in document["certificates"]})
    small, large = sorted(draw.sample(caps, 2))
    for group in (document["probes"], document["certificates"]):
        group[:] = [one for one in group if one["cap_bytes"] != small] if group is document["certificates"] else group
        for one in group:
            if one["cap_bytes"] in (small, large):
                one["cap_bytes"] = {large: small, small: small - 1}[one["cap_bytes"]]
    for probe in document["probes"]:
        for stage in probe["stages"]:
            stage["peak_reserved_bytes"] = min(stage["peak_reserved_bytes"], probe["cap_bytes"])
            stage["peak_allocated_bytes"] = min(stage["peak_allocated_bytes"], stage["peak_reserved_bytes"])
            stage["resident_bytes"] = min(stage["resident_bytes"], stage["peak_allocated_bytes"])


def _less_memory(document: Document, draw: random.Random) -> None:
    share = draw.uniform(0.5, 0.999)
    for stage in (stage for probe in document["probes"] for stage in probe["stages"]):
        for name in draw.sample(("peak_allocated_bytes", "peak_reserved_bytes", "resident_bytes"), 2):
            stage[name] = int(stage[name] * share)


def _other_knobs(document: Document, draw: random.Random) -> None:
    """What ran with frugal knobs is said to have run with comfortable ones."""
    field, value = draw.choice((("offload", "none"), ("quantization", None), ("lm_quantization", None), ("lm", "4B")))
    chosen = _certificate(document, draw)["knobs"]
    for one in (*document["probes"], *document["certificates"]):
        if one["knobs"] == chosen and (field != "lm" or one["knobs"]["lm"]):
            one["knobs"] = {**one["knobs"], field: value}


def _easier_work(document: Document, draw: random.Random) -> None:
    field, value = draw.choice((("lyric_tokens", 16), ("text_tokens", 16), ("steps", 1), ("task", "cover")))
    for probe in document["probes"]:
        if draw.random() < 0.7:
            probe["workload"][field] = value


def _drop_failures(document: Document, draw: random.Random) -> None:
    for certificate in document["certificates"]:
        if certificate["fits"] is not None and draw.random() < 0.5:
            certificate["fails"] = None


def _more_at_once(document: Document, _: random.Random) -> None:
    for probe in document["probes"]:
        for stage in probe["stages"]:
            stage["songs_per_pass"] = probe["workload"]["batch"]


def _degraded_is_a_fit(document: Document, _: random.Random) -> None:
    for probe in document["probes"]:
        if probe["verdict"] != "oom":
            probe |= {"verdict": "fits", "decode_path": "gpu"}


LIES: tuple[Lie, ...] = (
    *(_becomes_a_fit, _everything_fits, _longer, _more_songs, _smaller_cap, _less_memory, _other_knobs),
    *(_easier_work, _drop_failures, _more_at_once, _degraded_is_a_fit),
)

HONEST = measured()
"""A record of the simulated card, which makes the table as long as nothing else is measured."""


def lied(seed: int, *, simulated: bool = False) -> Document:
    """An honest record of a real card, or of the simulated one, with one to three lies in it."""
    draw = random.Random(seed)  # noqa: S311 it draws a lie, not a secret
    document: Document = json.loads(pretty_json(HONEST))
    card = draw.choice(CARDS)
    if not simulated:
        on_card(*card)(document)
    for lie in draw.sample(LIES, draw.randint(1, 3)):
        # After some lies there is nothing left for others to change.
        with suppress(IndexError):
            lie(document, draw)
    return document


def accepted(document: Document, folder: Path) -> Measurement | None:
    """The record, if no rule refuses it; the formula card stands for the simulation."""
    path = folder / "lie.json"
    path.write_bytes(sealed(document))
    if any(finding.level is RuleLevel.ERROR for finding in validate(path)):
        return None
    record = load_measurement(path)
    exact = record.card.kind is RecordedCardKind.SIMULATED
    return None if any(physics(record, AnalyticProber(), lambda _: None, exact=exact)) else record


def raised(before: TierTable, after: TierTable) -> list[str]:
    """Every place where a table promises more than another; a tier with a more frugal rung is another promise."""
    found = []
    for old, new in zip(before.variants[Variant.TURBO].tiers, after.variants[Variant.TURBO].tiers, strict=True):
        ranks = [[KNOBS[name].rank(getattr(tier, name)) for name in ("offload", "quantization")] for tier in (old, new)]
        less_frugal = any(now < was for was, now in zip(*ranks, strict=True))
        longer = [
            (lm, batch)
            for lm in (False, True)
            for batch in BATCHES
            if new.frontier.longest(batch, lm=lm) > old.frontier.longest(batch, lm=lm)
        ]
        better_lm = lm_rank(new.recommended_lm) > lm_rank(old.recommended_lm) or set(new.lm_models) > set(old.lm_models)
        if (ranks[0] == ranks[1] and (longer or better_lm)) or less_frugal:
            found.append(f"{old.id}: {ranks} {longer} {new.lm_models}")
    return found
