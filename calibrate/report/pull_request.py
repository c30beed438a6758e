"""What a pull request changes in the table, tier by tier, as a comment that a maintainer reads."""

import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from acestep.errors import InvalidInputError, UsageError
from acestep.knobs import Offload, Variant
from acestep.plan import minutes
from acestep.strict_json import read_json
from acestep.tiers import LM_MODELS, Tier, VariantTable
from calibrate.record import CardKind, Measurement
from calibrate.report.guide import markdown_table
from calibrate.report.marks import MARKS, short
from calibrate.report.render import PLOTS, Sources, read_sources, stale
from calibrate.report.render import render as rendered

TABLE = "tiers/generated_tiers.json"

MOST_CHARACTERS = 60_000
"""Of a comment; the place it goes to takes 65,536."""

_FIELDS = (
    *("lm_models", "recommended_lm", "lm_quantization", "backend", "backends_allowed", "max_duration_s", "max_batch"),
    *("frontier", "offload", "quantization", "lm_songs_per_pass", "init_lm", "compile", "certified_gib", "vram_gib"),
)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One value of one tier that differs, and what it rests on now; `way` says for whom it is good."""

    variant: str
    tier: str
    field: str
    before: str
    after: str
    way: str
    evidence: str


def pull_request_text(checkout: Path, base: str) -> str:
    """The changes of a checkout against a git reference, as Markdown."""
    sources = read_sources(checkout)
    before = table_at(checkout, base)
    changes = table_changes(before, sources)
    parts = [
        _headline(changes, base, before),
        _changes_text(changes),
        _records_text(before, sources),
        _plots_text(checkout, sources),
        _commands_text(sources, base),
    ]
    return _within("\n\n".join(part for part in parts if part) + "\n", MOST_CHARACTERS)


def table_at(checkout: Path, reference: str) -> dict[str, Any]:
    """The table's document at a git reference, empty where there was none; `UsageError` for no such reference.

    It is not read as this version's table: what is compared may be older than a field.
    """
    # A reference that begins with a dash would be an option.
    known = not reference.startswith("-") and _git(checkout, "rev-parse", "--verify", f"{reference}^{{commit}}")
    if not known:
        raise UsageError(f"git knows no commit {reference!r}; fetch it, or name another with --base")
    text = _git(checkout, "show", f"{reference}:{TABLE}")
    if not text:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "generated_tiers.json"
        copy.write_text(text, encoding="utf-8")
        document = read_json(copy)
    if not isinstance(document, dict) or not isinstance(document.get("variants"), dict):
        raise InvalidInputError(f"{reference}:{TABLE}", "has no variants, so it is no table to compare with")
    return document


def _git(checkout: Path, *arguments: str) -> str:
    """What git prints, nothing where it fails."""
    command = ["git", "-C", str(checkout), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 fixed program, no shell
    except FileNotFoundError:
        raise UsageError("git is not installed, so there is nothing to compare with") from None
    return done.stdout.decode("utf-8", errors="replace") if done.returncode == 0 else ""


def table_changes(before: Mapping[str, Any], sources: Sources) -> tuple[Change, ...]:
    """Every value that differs, variants and tiers in the order of the table."""
    old = before.get("variants", {})
    found: list[Change] = []
    for variant, table in sources.table.variants.items():
        found += _variant_changes(variant.value, _tiers_of(old.get(variant.value)), table)
    known = {variant.value for variant in sources.table.variants}
    found += [_whole(name, "all", "there", "gone", "worse") for name in old if name not in known]
    return tuple(found)


def _variant_changes(variant: str, old: Mapping[str, Mapping[str, Any]], table: VariantTable) -> Iterable[Change]:
    if not old:
        return [_whole(variant, "all", "—", "new", "better")]
    found: list[Change] = []
    for tier in table.tiers:
        if tier.id in old:
            found += _tier_changes(variant, old[tier.id], tier)
        else:
            found.append(_whole(variant, tier.id, "—", "new", "better"))
    kept = {tier.id for tier in table.tiers}
    return [*found, *(_whole(variant, name, "there", "gone", "worse") for name in old if name not in kept)]


def _tier_changes(variant: str, old: Mapping[str, Any], tier: Tier) -> Iterable[Change]:
    new: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(tier))
    for field in _FIELDS:
        for name, before, after in _leaves(field, old.get(field), new[field]):
            yield Change(
                variant=variant,
                tier=tier.id,
                field=name,
                before=_shown(name, before),
                after=_shown(name, after),
                way=_way(field, before, after),
                evidence=_evidence_text(tier, field),
            )
    for field in sorted(tier.evidence):
        before, after = _kind(old, field), tier.evidence[field].kind
        if before != after and before:
            yield Change(
                variant=variant,
                tier=tier.id,
                field=f"evidence of {field}",
                before=before,
                after=after,
                way=_stronger(before, after),
                evidence=_evidence_text(tier, field),
            )


def _leaves(name: str, before: Any, after: Any) -> Iterable[tuple[str, Any, Any]]:
    """The places below a field where two values differ; a `vram_gib` is told as a whole."""
    if name != "vram_gib" and isinstance(after, dict):
        known = before if isinstance(before, dict) else {}
        for key in dict.fromkeys([*after, *known]):
            yield from _leaves(f"{name}.{key}", known.get(key), after.get(key))
    elif before != after:
        yield name, before, after


def _way(field: str, before: Any, after: Any) -> str:
    """`better`, `worse`, or `changed` where it is neither."""
    if field in ("max_duration_s", "max_batch", "frontier", "lm_songs_per_pass"):
        return _by(_number(after), _number(before))
    if field == "offload":
        order = [mode.value for mode in Offload]
        return _by(order.index(before), order.index(after)) if before in order else "changed"
    if field in ("quantization", "lm_quantization"):
        return _by(after is None, before is None)
    if field == "lm_models":
        had = before if isinstance(before, list) else []
        gained, lost = [name for name in after if name not in had], [name for name in had if name not in after]
        return "changed" if gained and lost else _by(len(gained), len(lost))
    return "changed"


def _number(value: Any) -> float:
    """A limit; none where the base has no number there."""
    return value if isinstance(value, int | float) else 0


def _by(good: float, bad: float) -> str:
    return "better" if good > bad else "worse" if good < bad else "changed"


def _stronger(before: str, after: str) -> str:
    ranks = [*MARKS][::-1]
    return _by(ranks.index(after), ranks.index(before)) if {before, after} <= set(ranks) else "changed"


def _shown(name: str, value: Any) -> str:
    if value is None or value in ([], {}):
        return "none"
    if name.startswith(("max_duration_s", "frontier")) and isinstance(value, int):
        return minutes(value) if value else "does not fit"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _evidence_text(tier: Tier, field: str) -> str:
    evidence = tier.evidence.get(field)
    if evidence is None:
        return "—"
    return f"{MARKS.get(evidence.kind, '')} {evidence.kind} {code(short(evidence.record))}".strip()


def _kind(tier: Mapping[str, Any], field: str) -> str:
    return str(_mapping(_mapping(tier.get("evidence")).get(field)).get("kind", ""))


def _mapping(value: Any) -> Mapping[str, Any]:
    """An object of the base's document; empty where something else stands there."""
    return value if isinstance(value, dict) else {}


def _tiers_of(variant: Any) -> dict[str, Mapping[str, Any]]:
    tiers = _mapping(variant).get("tiers")
    return {str(tier.get("id")): tier for tier in map(_mapping, tiers)} if isinstance(tiers, list) else {}


def _whole(variant: str, tier: str, before: str, after: str, way: str) -> Change:
    return Change(variant=variant, tier=tier, field="", before=before, after=after, way=way, evidence="—")


def code(text: str) -> str:
    """A text that a stranger chose, as code: it names nobody, links nowhere and stays in its cell."""
    return f"`{re.sub(r'[^ -~]|[`|]', '?', text)}`"


def _headline(changes: Sequence[Change], base: str, before: Mapping[str, Any]) -> str:
    counts = {way: sum(change.way == way for change in changes) for way in ("worse", "better", "changed")}
    told = ", ".join(f"**{n} {'otherwise' if way == 'changed' else way}**" for way, n in counts.items() if n)
    said = f"Values that changed: {told}." if told else "No tier changes."
    first = "" if before else f" There was no table at {code(base)}."
    return f"## The tier table, against {code(base)}\n\n{said}{first}"


def _changes_text(changes: Sequence[Change]) -> str:
    if not changes:
        return ""
    order = ("worse", "better", "changed")
    ranked = sorted(changes, key=lambda change: order.index(change.way))
    rows = [
        (code(c.variant), code(c.tier), code(c.field) if c.field else "—", c.before, c.after, c.way, c.evidence)
        for c in ranked
    ]
    heading = ("Model", "Tier", "Value", "Before", "Now", "For the owner", "Found by")
    cells = [[*row[:3], _plain(row[3]), _plain(row[4]), *row[5:]] for row in rows]
    return markdown_table([heading, *cells])


def _plain(text: str) -> str:
    """A value of a table, which may be anything at the base, as text of one cell."""
    return text if re.fullmatch(r"[A-Za-z0-9 ,.+—-]*", text) else code(text)


def _records_text(before: Mapping[str, Any], sources: Sources) -> str:
    listed = _mapping(before.get("generated_from")).get("records")
    old = {str(digest) for digest in listed} if isinstance(listed, list) else set()
    new = set(sources.table.generated_from.records)
    rows = [_record_row(record, "there before" if record.digest in old else "new") for record in sources.records]
    gone = [(code(short(digest)), "—", "—", "—", "gone") for digest in sorted(old - new)]
    heading = ("Record", "Card", "Probes", "Code version", "")
    return "### What it rests on\n\n" + markdown_table([heading, *rows, *gone])


def _record_row(record: Measurement, state: str) -> tuple[str, ...]:
    kind = "simulated" if record.card.kind is CardKind.SIMULATED else "measured"
    return (
        f"{MARKS[kind]} {code(short(record.digest))}",
        code(record.card.name),
        str(len(record.probes)),
        code(record.code_version),
        state,
    )


def _plots_text(checkout: Path, sources: Sources) -> str:
    files = rendered(sources)
    drawn = [path for path in files if path.startswith(PLOTS)]
    # A comment belongs to no file: its pictures are found from the pull request's own address, at this commit.
    commit = _git(checkout, "rev-parse", "HEAD").strip()
    late = stale(checkout, files)
    said = f"\n\nNot rendered from this table yet: {', '.join(map(code, late))}." if late else ""
    pictures = "\n\n".join(f"![{Path(path).stem}](../raw/{commit}/{path})" for path in drawn)
    return f"### Plots\n\n{pictures}{said}" if drawn else ""


def _commands_text(sources: Sources, base: str) -> str:
    lines = [
        *(_run_command(record, sources.files[record.digest]) for record in sources.records),
        "python -m calibrate merge",
        "python -m calibrate render",
        f"python -m calibrate report --pr --base {base}",
        f"python -m ci.gate --base {base}",
    ]
    # A reference is text that somebody chose: it must not end the block it is shown in.
    text = "\n".join(re.sub(r"[^ -~]|`", "?", line) for line in lines)
    return f"### To reproduce\n\n```bash\n{text}\n```"


def _run_command(record: Measurement, path: str) -> str:
    """What measures a record again; its certificates say what was asked."""
    asked = [certificate.knobs for certificate in record.certificates]
    variant = next((knobs.variant for knobs in asked), Variant.TURBO)
    models = [name for name in LM_MODELS if any(knobs.lm == name for knobs in asked)]
    lm = f" --lm {' '.join(models)}" if models else ""
    return f"python -m calibrate run --device {record.card.kind} --variant {variant}{lm} -o {path}"


def _within(text: str, most: int) -> str:
    """A text of at most so many characters, cut between lines, that says so."""
    if len(text) <= most:
        return text
    note = "\n\n(Cut here; `python -m calibrate report --pr` prints all of it.)\n"
    return text[: text.rindex("\n", 0, most - len(note))] + note
