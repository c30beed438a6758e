"""A valid measurement file, damaged in sixty ways: each with the rule that must refuse it and the field to be named."""

import contextlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from acestep.units import GIB, MIB
from calibrate.files import pretty_json
from calibrate.record.measurement import Measurement, content_digest
from tests.fakes import measured

GOOD = pretty_json(measured(sizes=(4, 8)))
Document = dict[str, Any]
Change = Callable[[Document], object]


class Damage(NamedTuple):
    """A way to spoil the good file, the id of the rule it breaks and a part of the field that is named."""

    name: str
    rule: str
    field: str
    spoil: Callable[[], bytes]


def sealed(document: Document) -> bytes:
    """A document with the digest of its content, as far as it still is a measurement."""
    with contextlib.suppress(msgspec.ValidationError):
        document["digest"] = content_digest(msgspec.convert(document, Measurement))
    return json.dumps(document, ensure_ascii=False).encode()


def text(name: str, rule: str, field: str, change: Callable[[str], str | bytes]) -> Damage:
    """The file's text changed."""

    def spoil() -> bytes:
        changed = change(GOOD)
        return changed if isinstance(changed, bytes) else changed.encode()

    return Damage(name, rule, field, spoil)


def edit(name: str, rule: str, field: str, change: Change, *, seal: bool = True) -> Damage:
    """Something inside changed, and the digest made to match unless told otherwise."""

    def spoil() -> bytes:
        document = json.loads(GOOD)
        change(document)
        return sealed(document) if seal else json.dumps(document).encode()

    return Damage(name, rule, field, spoil)


def _turing(document: Document) -> None:
    document["card"] |= {"kind": "cuda", "compute_capability": "7.5", "total_bytes": 24 * GIB}
    document["cap_method"] = "fraction"


VIRTUAL = {"name", "uuid", "driver"}
_MARKS = {
    "name": "Virtual 8 GiB card 8.6",
    "uuid": "GPU-76697274-7561-6c00-0000-000000000860",
    "driver": "virtual-580.65",
}


def _virtual_but(kind: str, *left: str) -> Change:
    """A record of a virtual card of which only the marks in `left` are left, called `kind`."""

    def change(document: Document) -> None:
        document["card"] |= {"kind": kind, "name": "NVIDIA GeForce RTX 3070", "driver": "580.65"}
        document["card"] |= {field: _MARKS[field] for field in left}
        if kind != "simulated":
            document["card"]["total_bytes"] = 8 * GIB
            document["cap_method"] = "fraction"

    return change


def _virtual_clock(document: Document) -> None:
    _virtual_but("virtual", *VIRTUAL)(document)
    put(f"{_STAGE}.seconds", 3.5)(document)


def put(path: str, value: Any) -> Change:
    """Set the value at a dotted path."""
    *keys, last = (int(key) if key.isdigit() else key for key in path.split("."))

    def change(document: Document) -> None:
        node: Any = document
        for key in keys:
            node = node[key]
        node[last] = value

    return change


def drop(path: str) -> Change:
    """Remove the field at a dotted path."""
    *keys, last = (int(key) if key.isdigit() else key for key in path.split("."))

    def change(document: Document) -> None:
        node: Any = document
        for key in keys:
            node = node[key]
        del node[last]

    return change


_PROBES = json.loads(GOOD)["probes"]
_CERTIFICATES = json.loads(GOOD)["certificates"]
FIT = next(n for n, p in enumerate(_PROBES) if p["verdict"] == "fits" and p["knobs"]["lm"] is None)
OOM = next(n for n, p in enumerate(_PROBES) if p["verdict"] == "oom")
THINKS = next(n for n, p in enumerate(_PROBES) if p["knobs"]["lm"] is not None)
BOTH = next(n for n, c in enumerate(_CERTIFICATES) if None not in (c["fits"], c["fails"]))
FITS = next(n for n, c in enumerate(_CERTIFICATES) if c["fits"] is not None and c["fails"] is None)
FAILS = next(n for n, c in enumerate(_CERTIFICATES) if c["fits"] is None)


def nested_pair(*verdicts: str) -> tuple[int, int]:
    """Two probes under the same cap of which the second asks for longer songs and nothing else."""
    return next(
        (a, b)
        for a, small in enumerate(_PROBES)
        for b, large in enumerate(_PROBES)
        if (small["verdict"], large["verdict"]) == verdicts
        and (small["knobs"], small["cap_bytes"], small["workload"]["batch"])
        == (large["knobs"], large["cap_bytes"], large["workload"]["batch"])
        and small["workload"]["duration_s"] < large["workload"]["duration_s"]
    )


def _swap_sides(document: Document) -> None:
    certificate = document["certificates"][BOTH]
    certificate["fits"], certificate["fails"] = certificate["fails"], certificate["fits"]


def _bracket_backwards(document: Document) -> None:
    """The failing song becomes the shorter one."""
    certificate = document["certificates"][BOTH]
    document["probes"][certificate["fails"]]["workload"]["duration_s"] = 1.0


def _other_task_on_one_side(document: Document) -> None:
    certificate = document["certificates"][BOTH]
    document["probes"][certificate["fails"]]["workload"]["lyric_tokens"] = 100


def _certify_a_crash(document: Document) -> None:
    certificate = document["certificates"][FAILS]
    document["probes"][certificate["fails"]]["verdict"] = "crashed"


def _claim_a_fit(document: Document) -> None:
    document["probes"][document["certificates"][FAILS]["fails"]]["verdict"] = "fits"


def _certify_twice(document: Document) -> None:
    document["certificates"].append(dict(document["certificates"][FITS]))


def _larger_batch_reaches_further(document: Document) -> None:
    """Everything that a batch of 2 is certified for is claimed for 4, and the batch of 4 for what 1 reached."""
    first, second = _pair_of_batches(document)
    shorter = document["probes"][first["fits"]]
    copy = json.loads(json.dumps(shorter))
    copy["workload"]["duration_s"] = 1.0
    document["probes"].append(copy)
    first["fits"], first["fails"] = len(document["probes"]) - 1, None
    assert second["fits"] is not None


def _pair_of_batches(document: Document) -> tuple[Document, Document]:
    found = document["certificates"]
    return next(
        (a, b)
        for a in found
        for b in found
        if (a["knobs"], a["cap_bytes"]) == (b["knobs"], b["cap_bytes"]) and a["batch"] < b["batch"]
        if None not in (a["fits"], b["fits"])
    )


def _ask_again(document: Document) -> None:
    document["probes"].append(dict(document["probes"][OOM]))


def _longer_song_needs_less(document: Document) -> None:
    small, large = (document["probes"][number] for number in nested_pair("fits", "fits"))
    for stage, longer in zip(small["stages"], large["stages"], strict=True):
        if stage["name"] == "denoise":
            stage["peak_allocated_bytes"] = longer["peak_allocated_bytes"] - MIB
            longer["peak_allocated_bytes"] -= 100 * MIB


def _fit_above_a_failure(document: Document) -> None:
    """The same song in a shorter form ran out of memory under the same cap."""
    copy = json.loads(json.dumps(document["probes"][FIT]))
    copy["workload"]["duration_s"] = 1.0
    copy["verdict"] = "oom"
    document["probes"].append(copy)


def _too_many_probes(document: Document) -> None:
    document["probes"] += [{**document["probes"][OOM], "cap_bytes": 10**10 + n, "stages": []} for n in range(2001)]


def _coefficient_twice(document: Document) -> None:
    document["memory_model"] = [{"variant": "turbo", "name": "slope", "value": 1.5}] * 2


_STAGE = f"probes.{FIT}.stages.1"
_AT_STAGE = f"probes[{FIT}].stages[1]"

DAMAGES: tuple[Damage, ...] = (
    text("larger than any record", "V001", "$", lambda good: good + " " * (4 * MIB)),
    text("cut in half", "V002", "$", lambda good: good[: len(good) // 2]),
    text("empty", "V002", "$", lambda _: ""),
    text("two documents", "V002", "$", lambda good: good + good),
    text("no UTF-8", "V002", "$", lambda good: good.encode().replace(b"8.6", b"8\xff6")),
    text("UTF-16", "V002", "$", lambda good: good.encode("utf-16")),
    text("a comment", "V002", "$", lambda good: "// mine\n" + good),
    text("a trailing comma", "V002", "$", lambda good: good.rstrip()[:-1] + ",}"),
    text("nested without end", "V003", "$", lambda _: "[" * 200_000),
    edit("nested in a field", "V003", "$.card", put("card.name", [[[[[[[[[[[[[["x"]]]]]]]]]]]]]]), seal=False),
    text("NaN seconds", "V004", "seconds", lambda good: good.replace('"seconds": 0.0', '"seconds": NaN', 1)),
    text("infinite seconds", "V004", "seconds", lambda good: good.replace('"seconds": 0.0', '"seconds": Infinity', 1)),
    text("overflowing seconds", "V004", "seconds", lambda good: good.replace('"seconds": 0.0', '"seconds": 1e999', 1)),
    edit("a cap of 2^80", "V004", f"probes[{FIT}].cap_bytes", put(f"probes.{FIT}.cap_bytes", 2**80), seal=False),
    text("the card twice", "V005", "$.card", lambda good: good.replace('"card":', '"card": {}, "card":', 1)),
    text(
        "a verdict twice",
        "V005",
        "verdict",
        lambda good: good.replace('"verdict":', '"verdict": "fits", "verdict":', 1),
    ),
    edit("markup in the card's name", "V006", "card.name", put("card.name", "<b>RTX</b>"), seal=False),
    edit("a name over 80 characters", "V006", "card.name", put("card.name", "x" * 81), seal=False),
    edit("a terminal's escape", "V006", "environment.torch", put("environment.torch", "2.13\x1b[31m"), seal=False),
    edit("half a character", "V006", "card.name", put("card.name", "\ud83d"), seal=False),
    edit("a line break in a version", "V006", "environment.python", put("environment.python", "3.11\n"), seal=False),
    edit("a shell's substitution", "V006", "code_version", put("code_version", "$(id)"), seal=False),
    edit("a link in a language model", "V006", "knobs.lm", put(f"probes.{FIT}.knobs.lm", "[x](y)#"), seal=False),
    edit("an unsafe field name", "V006", "card", put("card.<script>", 1), seal=False),
    edit("a newer schema", "V007", "schema_version", put("schema_version", 99), seal=False),
    edit("an unknown field of the card", "V008", "card", put("card.colour", "green"), seal=False),
    edit("an unknown field at the top", "V008", "$", put("extra", 1), seal=False),
    edit("an unknown knob", "V008", f"probes[{FIT}].knobs", put(f"probes.{FIT}.knobs.turbo", True), seal=False),
    text("a list", "V009", "$", lambda _: "[]"),
    text("null", "V009", "$", lambda _: "null"),
    edit("no card", "V009", "$", drop("card"), seal=False),
    edit("no digest", "V009", "$", drop("digest"), seal=False),
    edit("no version", "V009", "$", drop("schema_version"), seal=False),
    edit("a null cap method", "V009", "cap_method", put("cap_method", None), seal=False),
    edit("an unknown verdict", "V009", f"probes[{FIT}].verdict", put(f"probes.{FIT}.verdict", "fine"), seal=False),
    edit("a size in words", "V009", "card.total_bytes", put("card.total_bytes", "8 GiB"), seal=False),
    edit("a cap of nothing", "V009", f"probes[{FIT}].cap_bytes", put(f"probes.{FIT}.cap_bytes", 0), seal=False),
    edit("negative memory", "V009", _AT_STAGE, put(f"{_STAGE}.resident_bytes", -1), seal=False),
    edit("a song of no length", "V009", f"probes[{FIT}].workload", put(f"probes.{FIT}.workload.duration_s", 0.0)),
    edit("a certificate past the end", "V010", f"[{BOTH}].fits", put(f"certificates.{BOTH}.fits", 10**6)),
    edit("a certificate of something else", "V010", f"certificates[{FITS}]", put(f"certificates.{FITS}.batch", 64)),
    edit("a certificate of nothing", "V010", f"[{FITS}]", put(f"certificates.{FITS}.fits", None)),
    edit("a certificate the wrong way round", "V010", f"certificates[{BOTH}]", _swap_sides),
    edit("a certificate that does not bracket", "V010", f"certificates[{BOTH}]", _bracket_backwards),
    edit("a failure that became a fit", "V010", "certificates[", _claim_a_fit),
    edit("an edited peak", "V011", "$.digest", put(f"{_STAGE}.peak_reserved_bytes", 1), seal=False),
    edit("an edited environment", "V011", "$.digest", put("environment.torch", "9.9.9"), seal=False),
    edit("no certificates", "V101", "certificates", put("certificates", [])),
    edit("more probes than a campaign asks", "V101", "probes", _too_many_probes),
    edit("code of no release", "V102", "code_version", put("code_version", "main")),
    edit("code from the future", "V102", "code_version", put("code_version", "99.0.0+tree.0123456789abcdef")),
    edit("a simulated card of a size", "V104", "card.total_bytes", put("card.total_bytes", 8 * GIB)),
    edit("a simulated card with a clock", "V104", f"{_AT_STAGE}.seconds", put(f"{_STAGE}.seconds", 3.5)),
    *(
        edit(f"a virtual card called {kind}, with its {field}", "V119", f"card.{field}", _virtual_but(kind, field))
        for kind in ("cuda", "simulated")
        for field in sorted(VIRTUAL)
    ),
    *(
        edit(f"a virtual card without {field}", "V119", f"card.{field}", _virtual_but("virtual", *VIRTUAL - {field}))
        for field in sorted(VIRTUAL)
    ),
    edit("a virtual card with a clock", "V104", f"{_AT_STAGE}.seconds", _virtual_clock),
    edit("a real card capped by a model", "V104", "cap_method", put("card.kind", "cuda")),
    edit("a cap above the card", "V105", "cap_bytes", put("card.total_bytes", GIB)),
    edit("a batch of 65", "V106", "workload.batch", put(f"probes.{OOM}.workload.batch", 10**4)),
    edit("a song of an hour", "V106", "workload.duration_s", put(f"probes.{OOM}.workload.duration_s", 3600.0)),
    edit("thinking without a model", "V106", "with_lm", put(f"probes.{THINKS}.workload.with_lm", False)),
    edit("an unknown model", "V106", "knobs.lm", put(f"probes.{THINKS}.knobs.lm", "9000B")),
    edit("more songs a pass than there are", "V107", "songs_per_pass", put(f"probes.{OOM}.songs_per_pass", 64)),
    edit("an unknown stage", "V108", f"probes[{FIT}].stages", put(f"{_STAGE}.name", "mastering")),
    edit("a fit without stages", "V108", f"probes[{FIT}].stages", put(f"probes.{FIT}.stages", [])),
    edit("a peak above its cap", "V109", "peak_reserved_bytes", put(f"{_STAGE}.peak_reserved_bytes", 2**40)),
    edit("tensors above their reserve", "V109", "peak_allocated_bytes", put(f"{_STAGE}.peak_allocated_bytes", 2**40)),
    edit("weights above the peak", "V109", "resident_bytes", put(f"{_STAGE}.resident_bytes", 2**40)),
    edit("a fit without memory", "V110", f"probes[{FIT}].stages", put(f"{_STAGE}.peak_allocated_bytes", 0)),
    edit("a question asked twice", "V111", "probes[", _ask_again),
    edit("a fit above a failure", "V112", "probes[", _fit_above_a_failure),
    edit("a longer song that needs less", "V113", "peak_allocated_bytes", _longer_song_needs_less),
    edit("a certificate on a crash", "V115", f"certificates[{FAILS}].fails", _certify_a_crash),
    edit("two sides of different work", "V115", f"certificates[{BOTH}]", _other_task_on_one_side),
    edit("a boundary certified twice", "V116", "certificates[", _certify_twice),
    edit("a larger batch that reaches further", "V116", "certificates[", _larger_batch_reaches_further),
    edit("a card without bfloat16", "V118", "compute_capability", _turing),
    edit("a coefficient given twice", "V117", "memory_model[1]", _coefficient_twice),
)
