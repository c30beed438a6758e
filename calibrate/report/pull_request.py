"""The changes of a pull request in the table, tier by tier, as a comment for a maintainer."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from acestep.errors import InvalidInputError
from acestep.knobs import LM_MODELS, Variant
from acestep.tiers import Tier, load_tiers
from acestep.units import minutes
from calibrate.git import commit_of, folder_at
from calibrate.record.compare import Sheet, TableChange, Way, differences, table_sheet
from calibrate.record.measurement import Measurement
from calibrate.report.guide import markdown_table
from calibrate.report.marks import MARKS, short
from calibrate.report.render import PLOTS, Sources, read_sources, stale
from calibrate.report.render import render as rendered

TABLE_PATH = "tiers/generated_tiers.json"

MOST_COMMENT_CHARACTERS = 60_000
"""Largest length of a comment; the site accepts 65,536 characters."""


def pull_request_text(checkout: Path, base: str) -> str:
    """The changes of a checkout against a git reference, as Markdown."""
    sources = read_sources(checkout)
    before = sheet_at(checkout, base)
    changes = differences(before, table_sheet(sources.table))
    parts = [
        _headline(changes, base, before),
        _changes_text(changes, sources),
        _records_text(before, sources),
        _plots_text(checkout, sources),
        _commands_text(sources, base),
    ]
    return _within("\n\n".join(part for part in parts if part) + "\n", MOST_COMMENT_CHARACTERS)


def sheet_at(checkout: Path, reference: str) -> Sheet:
    """Return the table's values at a git reference, empty if there was no table.

    Raises `GitError` for an unknown reference.
    """
    with folder_at(checkout, reference, TABLE_PATH) as folder:
        table = folder / TABLE_PATH
        if not table.is_file() or not table.read_bytes():
            return {}
        try:
            return table_sheet(load_tiers(table))
        except InvalidInputError as error:
            raise InvalidInputError(f"{reference}:{TABLE_PATH}", error.problem) from None


def _headline(changes: Sequence[TableChange], base: str, before: Sheet) -> str:
    told = [change for change in changes if _is_promise(change)]
    counts = {way: sum(change.way is way for change in told) for way in Way}
    said = ", ".join(f"**{count} {way}**" for way, count in counts.items() if count)
    guard = sum(change.place.endswith("memory model") for change in changes)
    lines = [
        f"Values that changed: {said}." if told else "No tier changes.",
        f"{guard} coefficients of the VRAM guard changed." if guard else "",
        "" if before else f"There was no table at {code(base)}.",
    ]
    return f"## The tier table, against {code(base)}\n\n{' '.join(line for line in lines if line)}"


def _is_promise(change: TableChange) -> bool:
    """Return whether a change is about a card's limits, and not about a table's sources."""
    return change.place != "table" and not change.place.endswith("memory model")


def _changes_text(changes: Sequence[TableChange], sources: Sources) -> str:
    tiers = {f"{variant} {tier.id}": tier for variant, entry in sources.table.variants.items() for tier in entry.tiers}
    rows = [_change_row(change, tiers) for change in changes if _is_promise(change)]
    heading = ("Where", "Value", "Before", "Now", "For the owner", "Found by")
    return markdown_table([heading, *rows]) if rows else ""


def _change_row(change: TableChange, tiers: Mapping[str, Tier]) -> tuple[str, ...]:
    field = change.field.removeprefix("evidence.")
    evidence = tiers[change.place].evidence_for(field) if change.place in tiers else None
    found = "—"
    if evidence is not None:
        found = f"{MARKS.get(evidence.kind, '')} {evidence.kind} {code(short(evidence.record))}".strip()
    shown = (_shown(change.field, change.before), _shown(change.field, change.after))
    return (
        code(change.place),
        code(change.field) if change.field else "—",
        *(shown if change.field else ("—", "—")),
        change.way,
        found,
    )


def _shown(field: str, value: object) -> str:
    """Return a value as text for a maintainer.

    Anything but plain text becomes code, because a table may contain anything.
    """
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and field.startswith(("max_duration_s.", "frontier.")):
        return minutes(value) if value else "does not fit"
    return str(value) if re.fullmatch(r"[A-Za-z0-9 ,.+-]*", str(value)) else code(str(value))


def code(text: str) -> str:
    """Return untrusted text as code: it cannot mention a user, make a link or leave its cell."""
    return f"`{re.sub(r'[^ -~≤≥]|[`|]', '?', text)}`"


def _records_text(before: Sheet, sources: Sources) -> str:
    old = set(str(before.get("table", {}).get("records", "")).split(", ")) - {""}
    new = set(sources.table.generated_from.records)
    rows = [_record_row(record, "there before" if record.digest in old else "new") for record in sources.records]
    gone = [(code(short(digest)), "—", "—", "—", "gone") for digest in sorted(old - new)]
    heading = ("Record", "Card", "Probes", "Code version", "")
    return "### What it rests on\n\n" + markdown_table([heading, *rows, *gone])


def _record_row(record: Measurement, state: str) -> tuple[str, ...]:
    return (
        f"{MARKS[record.evidence]} {code(short(record.digest))}",
        code(record.card.name),
        str(len(record.probes)),
        code(record.code_version),
        state,
    )


def _plots_text(checkout: Path, sources: Sources) -> str:
    files = rendered(sources)
    drawn = [path for path in files if path.startswith(PLOTS)]
    # A comment has no folder of its own: its pictures are addressed through the pull request's repository, at this
    # commit.
    commit = commit_of(checkout, "HEAD")
    late = stale(checkout, files)
    said = f"\n\nNot rendered from this table yet: {', '.join(map(code, late))}." if late else ""
    pictures = "\n\n".join(f"![{Path(path).stem}](../raw/{commit}/{path})" for path in drawn)
    return f"### Plots\n\n{pictures}{said}" if drawn else ""


def _commands_text(sources: Sources, base: str) -> str:
    lines = [
        *(_run_command(record, sources.files[record.digest]) for record in sources.records),
        "python -m calibrate merge",
        "python -m calibrate render",
        f"python -m calibrate report --pr --base {shlex.quote(base)}",
        f"python -m ci.gate --base {shlex.quote(base)}",
    ]
    # References and file names are untrusted: they must not end the block they are shown in.
    text = "\n".join(re.sub(r"[^ -~]|`", "?", line) for line in lines)
    return f"### To reproduce\n\n```bash\n{text}\n```"


def _run_command(record: Measurement, path: str) -> str:
    """Return the command that measures a record again; its certificates contain the scope."""
    asked = [certificate.knobs for certificate in record.certificates]
    variant = next((knobs.variant for knobs in asked), Variant.TURBO)
    models = [name for name in LM_MODELS if any(knobs.lm == name for knobs in asked)]
    lm = f" --lm {' '.join(models)}" if models else ""
    return f"python -m calibrate run --device {record.card.kind} --variant {variant}{lm} -o {shlex.quote(path)}"


def _within(text: str, most: int) -> str:
    """Return a text of at most `most` characters; a cut is made between lines, with a note."""
    if len(text) <= most:
        return text
    note = "\n\n(Cut here; `python -m calibrate report --pr` prints all of it.)\n"
    return text[: text.rindex("\n", 0, most - len(note))] + note
