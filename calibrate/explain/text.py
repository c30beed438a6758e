"""An explanation as text for a terminal."""

import textwrap
from collections.abc import Iterator

import click
import msgspec

from acestep.cli.show import aligned
from acestep.evidence import short_digest
from acestep.request import DecodePath
from acestep.units import gib, mib
from calibrate.explain.document import Budget, ExplainedCell, ExplainedProbe, ExplainedSource, Explanation, PolicyEntry
from calibrate.table.knobs import describe_knobs
from calibrate.verdict import Verdict

_LABEL_WIDTH = len("Evidence  ")

_WIDTH = 110
"""Columns of a sentence; a command stays on one line, so that it can be copied."""


def print_explanation(found: Explanation) -> None:
    """Print every cell on stdout, a blank line between two."""
    blocks = [f"{found.variant} {found.tier} ({found.label})", *map(_block, found.cells)]
    click.echo("\n\n".join(blocks))


def _block(cell: ExplainedCell) -> str:
    return "\n".join([f"{cell.field}: {_json(cell.value)}", *_lines(cell)])


def _lines(cell: ExplainedCell) -> Iterator[str]:
    yield _labelled("Promise", cell.promise)
    yield _labelled("Evidence", f"{cell.evidence.kind}. {cell.rule}")
    for source in cell.sources:
        yield _labelled("Record", _source(source))
    for budget in cell.budgets:
        yield _labelled("Budget", _budget(budget))
    for entry in cell.policy:
        yield _labelled("Policy", _entry(entry))
    yield from _probe("Fits", cell.fits, cell.no_fits)
    yield from _probe("Fails", cell.fails, cell.no_fails)


def _labelled(label: str, text: str) -> str:
    indent = " " * _LABEL_WIDTH
    return textwrap.fill(
        label.ljust(_LABEL_WIDTH) + text,
        _WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _source(source: ExplainedSource) -> str:
    card = source.card.name or f"{source.card.kind} card"
    return f"{source.file} ({short_digest(source.digest)}), {card}, code {source.code_version}"


def _budget(budget: Budget) -> str:
    terms = "".join(f" - {term.gib:.2f} {term.name} ({term.rule})" for term in budget.terms)
    return f"{budget.nameplate_gib} GiB nameplate{terms} = {gib(budget.cap_bytes)} cap"


def _entry(entry: PolicyEntry) -> str:
    return f"policy.json {entry.place} = {_json(entry.value)}: {entry.why}"


def _probe(label: str, probe: ExplainedProbe | None, missing: str) -> Iterator[str]:
    if probe is None:
        if missing:
            yield _labelled(label, f"No probe. {missing}")
        return
    songs = f"{probe.workload.batch} x {probe.workload.duration_s:g} s"
    asked = f"{songs} under {gib(probe.cap_bytes)}, {describe_knobs(probe.knobs)}"
    yield _labelled(label, f"Probe {probe.index}: {asked}: {_ending(probe)}")
    indent = " " * _LABEL_WIDTH
    columns = ("stage", "songs a pass", "allocated", "allowance", "reserved")
    stages = [
        (
            stage.name,
            str(stage.songs_per_pass),
            mib(stage.peak_allocated_bytes),
            mib(stage.allowance_bytes),
            mib(stage.peak_reserved_bytes),
        )
        for stage in probe.stages
    ]
    yield from (indent + line for line in aligned([columns, *stages]))
    yield f"{indent}Repeat: {probe.repeat}"


def _ending(probe: ExplainedProbe) -> str:
    """The verdict; where memory ran out, or why a run that fits keeps no promise."""
    if probe.verdict is Verdict.OOM:
        return f"{probe.verdict} in {probe.stages[-1].name}" if probe.stages else f"{probe.verdict} while weights load"
    if probe.songs_per_pass != probe.workload.batch:
        return f"{probe.verdict}, but only {probe.songs_per_pass} songs at once"
    return f"{probe.verdict}, but decoded on the CPU" if probe.decode_path is DecodePath.CPU else str(probe.verdict)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
