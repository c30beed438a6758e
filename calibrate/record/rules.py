"""The rules of a measurement file: one id, one level and one sentence for each."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import cache
from itertools import combinations, islice
from pathlib import Path

import msgspec

from acestep.errors import InvalidInputError
from acestep.knobs import LM_MODELS, Knobs
from acestep.request import MAX_BATCH, MAX_DURATION_S, MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, DecodePath
from acestep.stage import Stage
from acestep.units import gib
from calibrate.fingerprint import code_version
from calibrate.probes.base import CapMethod
from calibrate.record.adapting import adapts
from calibrate.record.measurement import Measurement, RecordedCardKind, RecordedProbe
from calibrate.verdict import Verdict

_ALWAYS = (Stage.ENCODE, Stage.DENOISE, Stage.DECODE)

_GROWING = (Stage.THINK, Stage.ENCODE, Stage.DENOISE)
"""Stages whose tensors only grow with the work, unless they adapt to the room that is left as decode always does.

How thinking has adapted is in its songs at a time, so it is compared where there are as many.
"""

_JITTER = 0.02
"""The share by which a larger run may need less: kernels' workspaces depend on the shape."""

MOST_PROBES = 2000
"""Several times the probes of a campaign over every size; some rules compare each probe with each."""

_MOST_FINDINGS = 5
"""Findings of one rule in one file that are reported; more would say the same."""


class RuleLevel(StrEnum):
    """Whether a finding refuses a file or only asks for a review."""

    ERROR = "error"
    WARNING = "warning"


class RecordRule(msgspec.Struct, frozen=True, kw_only=True):
    """One promise of a measurement file."""

    id: str
    level: RuleLevel
    promise: str


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """Where a file breaks a rule, and how."""

    rule: RecordRule
    field: str
    problem: str


RecordProblem = tuple[str, str]
"""A field and what is wrong with it."""

_NO_CERTIFICATE: RecordProblem = ("certificates", "are 0")

RecordCheck = Callable[[Measurement], Iterator[RecordProblem]]

RECORD_RULES: dict[str, RecordRule] = {}
"""Every rule by its id; those without a check here are checked by the reader of contributed files."""

_CHECKS: dict[str, RecordCheck] = {}
_OF_PROMISES: set[str] = set()


def declared(rule_id: str, promise: str, level: RuleLevel = RuleLevel.ERROR) -> RecordRule:
    """A new rule; `ValueError` when its id is taken."""
    if rule_id in RECORD_RULES:
        raise ValueError(f"rule {rule_id} is declared twice")
    RECORD_RULES[rule_id] = RecordRule(id=rule_id, level=level, promise=promise)
    return RECORD_RULES[rule_id]


def record_rule(
    rule_id: str, promise: str, level: RuleLevel = RuleLevel.ERROR, *, of_promises: bool = False
) -> Callable[[RecordCheck], RecordCheck]:
    """Register a check as a new rule; one `of_promises` is only about records that a table may follow."""
    declared(rule_id, promise, level)

    def keep(check: RecordCheck) -> RecordCheck:
        _CHECKS[rule_id] = check
        if of_promises:
            _OF_PROMISES.add(rule_id)
        return check

    return keep


def broken_rules(record: Measurement, *, certifies: bool = True) -> list[Broken]:
    """Return the rules that a record breaks, in the order of their ids; for a record that is too large, only that one.

    With `certifies` false a record may lack certificates, and no rule about promises is asked.
    """
    # The rules about meaning are built with this module.
    from calibrate.record import meaning as meaning

    broken: list[Broken] = []
    for rule_id, check in _CHECKS.items():
        if rule_id in _OF_PROMISES and not certifies:
            continue
        found = islice((one for one in check(record) if certifies or one != _NO_CERTIFICATE), _MOST_FINDINGS)
        broken += [Broken(rule=RECORD_RULES[rule_id], field=field, problem=problem) for field, problem in found]
        if broken and check is _amount:
            break
    return broken


def require_sound(path: Path, record: Measurement, *, certifies: bool = True) -> None:
    """Raise `InvalidInputError` if a file's record breaks a rule: its values are then not a card's answers."""
    for broken in broken_rules(record, certifies=certifies):
        if broken.rule.level is RuleLevel.ERROR:
            raise InvalidInputError(
                path,
                f"{broken.field} {broken.problem}; the rule {broken.rule.id}: {broken.rule.promise};"
                f" `python -m calibrate validate {path}` tells all that is wrong with it",
            )


@record_rule("V101", f"a record holds probes and certificates, at most {MOST_PROBES} of each")
def _amount(record: Measurement) -> Iterator[RecordProblem]:
    for name in ("probes", "certificates"):
        if not 0 < (number := len(getattr(record, name))) <= MOST_PROBES:
            yield name, f"are {number}"


@record_rule("V102", "the code version is a release no newer than this one and the digest of its sources")
def _code_version(record: Measurement) -> Iterator[RecordProblem]:
    if not re.fullmatch(r"\d+\.\d+\.\d+\+tree\.[0-9a-f]{16}", record.code_version):
        yield "code_version", f"is {record.code_version}, expected RELEASE+tree.DIGEST as `calibrate run` writes it"
    elif _release(record.code_version) > _release(_code_here()):
        yield "code_version", f"is {record.code_version}, newer than this program; update it"


@record_rule("V103", "the code that was measured is the code that is here", RuleLevel.WARNING)
def _same_code(record: Measurement) -> Iterator[RecordProblem]:
    if record.code_version != _code_here():
        yield "code_version", f"is {record.code_version}, here is {_code_here()}; measure again before merging"


@record_rule(
    "V104", "a simulated card has no size and is capped by the model, others have one; only a real one has a clock"
)
def _card(record: Measurement) -> Iterator[RecordProblem]:
    simulated = record.card.kind is RecordedCardKind.SIMULATED
    if simulated != (record.card.total_bytes == 0):
        yield "card.total_bytes", f"is {record.card.total_bytes} on a {record.card.kind} card"
    if simulated != (record.cap_method is CapMethod.MODEL):
        yield "cap_method", f"is {record.cap_method} on a {record.card.kind} card"
    for place, stage in ((f"{at}.stages[{n}]", s) for at, p in numbered_probes(record) for n, s in enumerate(p.stages)):
        if stage.seconds < 0 or (stage.seconds > 0 and record.card.kind is not RecordedCardKind.CUDA):
            yield f"{place}.seconds", f"is {stage.seconds:g} on a {record.card.kind} card"


@record_rule("V105", "a cap is no larger than the card")
def _cap(record: Measurement) -> Iterator[RecordProblem]:
    total = record.card.total_bytes
    for place, probe in numbered_probes(record):
        if 0 < total < probe.cap_bytes:
            yield f"{place}.cap_bytes", f"is {gib(probe.cap_bytes)} on a card of {gib(total)}"


@record_rule("V106", "a probe asks for what a request may ask for")
def _possible_work(record: Measurement) -> Iterator[RecordProblem]:
    most = {
        "batch": MAX_BATCH,
        "duration_s": MAX_DURATION_S,
        "lyric_tokens": MAX_LYRIC_TOKENS,
        "text_tokens": MAX_TEXT_TOKENS,
    }
    for place, probe in numbered_probes(record):
        for name, limit in most.items():
            if (asked := getattr(probe.workload, name)) > limit:
                yield f"{place}.workload.{name}", f"is {asked:g}, a request may have {limit:g}"
        if probe.workload.with_lm != (probe.knobs.lm is not None):
            yield f"{place}.workload.with_lm", "must be true exactly where the knobs name a language model"
        if probe.knobs.lm not in (None, *LM_MODELS):
            yield f"{place}.knobs.lm", f"is {probe.knobs.lm}, expected one of {', '.join(LM_MODELS)}"


@record_rule("V107", "songs are denoised one to all at a time")
def _passes(record: Measurement) -> Iterator[RecordProblem]:
    for place, probe in numbered_probes(record):
        if not 1 <= probe.songs_per_pass <= probe.workload.batch:
            yield f"{place}.songs_per_pass", f"is {probe.songs_per_pass} of {probe.workload.batch} songs"


@record_rule("V108", "stages are those of the pipeline, in its order; a run that ended has encode, denoise and decode")
def _stages(record: Measurement) -> Iterator[RecordProblem]:
    for place, probe in numbered_probes(record):
        names = [stage.name for stage in probe.stages]
        if names != [name for name in Stage if name in names]:
            yield f"{place}.stages", f"are {names}, expected some of {[name.value for name in Stage]} in this order"
        missing = [name.value for name in _ALWAYS if name not in names]
        if probe.verdict in (Verdict.FITS, Verdict.DEGRADED) and missing:
            yield f"{place}.stages", f"of a run that ended {probe.verdict} lack {missing}"


@record_rule("V109", "nothing holds more than its cap, and no tensors more than what was reserved for them")
def _peaks(record: Measurement) -> Iterator[RecordProblem]:
    for place, probe in numbered_probes(record):
        for number, stage in enumerate(probe.stages):
            at = f"{place}.stages[{number}]"
            if stage.peak_reserved_bytes > probe.cap_bytes:
                yield f"{at}.peak_reserved_bytes", f"is {gib(stage.peak_reserved_bytes)} under {gib(probe.cap_bytes)}"
            # A run that did not fit includes the request that failed in the bytes of its last stage.
            ended = probe.verdict is Verdict.FITS or number < len(probe.stages) - 1
            if ended and stage.peak_allocated_bytes > stage.peak_reserved_bytes:
                yield f"{at}.peak_allocated_bytes", f"is above its peak_reserved_bytes, {stage.peak_reserved_bytes}"
            if stage.resident_bytes > stage.peak_allocated_bytes:
                yield f"{at}.resident_bytes", f"is above its peak_allocated_bytes, {stage.peak_allocated_bytes}"


@record_rule("V110", "a run that fits was seen to use memory, and its songs were decoded on the card")
def _fits_are_real(record: Measurement) -> Iterator[RecordProblem]:
    for place, probe in numbered_probes(record):
        if probe.verdict is not Verdict.FITS:
            continue
        if probe.decode_path is DecodePath.CPU:
            yield f"{place}.decode_path", "is cpu, which is a verdict of degraded"
        if any(stage.peak_allocated_bytes == 0 for stage in probe.stages):
            yield f"{place}.stages", "of a run that fits took no memory"


@record_rule("V111", "a question is asked once")
def _asked_once(record: Measurement) -> Iterator[RecordProblem]:
    seen: dict[object, str] = {}
    for place, probe in numbered_probes(record):
        if probe.question in seen:
            yield place, f"asks the same as {seen[probe.question]}"
        seen.setdefault(probe.question, place)


@record_rule("V112", "a longer song or a larger batch does not fit where less did not")
def _no_fit_above_a_failure(record: Measurement) -> Iterator[RecordProblem]:
    for (place, small), (other, large) in _nested(record):
        if small.verdict is Verdict.OOM and large.verdict is Verdict.FITS:
            yield place, f"ended oom, yet {other} asks for more under the same cap and fits"


@record_rule("V113", "a longer song or a larger batch takes no less memory")
def _growth(record: Measurement) -> Iterator[RecordProblem]:
    for (place, small), (other, large) in _nested(record):
        if Verdict.OOM in (small.verdict, large.verdict):
            continue
        growing = {
            stage.name: stage
            for stage in large.stages
            if stage.name in _GROWING
            and (stage.name == Stage.THINK or not adapts(stage.name, large.knobs, large.workload))
        }
        for number, stage in enumerate(small.stages):
            more = growing.get(stage.name, stage)
            least = stage.peak_allocated_bytes * (1 - _JITTER)
            if more.peak_allocated_bytes < least and more.songs_per_pass >= stage.songs_per_pass:
                yield f"{place}.stages[{number}].peak_allocated_bytes", f"is above that of {other}, which asks for more"


@record_rule("V114", "a run that fits under a cap fits under every larger one", RuleLevel.WARNING)
def _caps_agree(record: Measurement) -> Iterator[RecordProblem]:
    smallest: dict[object, tuple[int, str]] = {}
    by_cap = sorted(numbered_probes(record), key=lambda found: found[1].cap_bytes)
    for place, probe in by_cap:
        cap_bytes, fitting = smallest.get((probe.knobs, probe.workload), (probe.cap_bytes, place))
        if probe.verdict is Verdict.FITS:
            smallest.setdefault((probe.knobs, probe.workload), (probe.cap_bytes, place))
        elif probe.verdict is Verdict.OOM and cap_bytes < probe.cap_bytes:
            yield place, f"ended oom, yet {fitting} fits under a smaller cap"


@record_rule("V115", "a certificate rests on answers, and its two probes differ in nothing but the song's length")
def _certificates_rest_on_answers(record: Measurement) -> Iterator[RecordProblem]:
    for number, certificate in enumerate(record.certificates):
        sides = {side: record.probes[i] for side in ("fits", "fails") if (i := getattr(certificate, side)) is not None}
        for side, probe in sides.items():
            if not probe.verdict.answers:
                yield f"certificates[{number}].{side}", f"is a probe that ended {probe.verdict}, which says nothing"
        if len({msgspec.structs.replace(probe.workload, duration_s=1.0) for probe in sides.values()}) > 1:
            yield f"certificates[{number}]", "compares two probes that differ in more than the song's length"


@record_rule("V116", "a boundary is certified once, and no larger batch reaches further than a smaller one")
def _certificates_agree(record: Measurement) -> Iterator[RecordProblem]:
    reach: dict[tuple[Knobs, int], list[tuple[int, int, int]]] = defaultdict(list)
    for number, certificate in enumerate(record.certificates):
        reach[certificate.knobs, certificate.cap_bytes].append((certificate.batch, record.longest(certificate), number))
    for found in reach.values():
        for (batch, seconds, number), (larger, longer, other) in combinations(sorted(found), 2):
            if batch == larger:
                yield f"certificates[{other}]", f"certifies the same boundary as certificates[{number}]"
            elif longer > seconds:
                yield f"certificates[{other}]", f"reaches {longer} s with {larger} songs, {seconds} s with {batch}"


@record_rule("V117", "a coefficient of the guard's model is given once a variant")
def _coefficients(record: Measurement) -> Iterator[RecordProblem]:
    seen = set()
    for number, coefficient in enumerate(record.memory_model):
        if (coefficient.variant, coefficient.name) in seen:
            yield f"memory_model[{number}]", f"gives {coefficient.name} of {coefficient.variant} again"
        seen.add((coefficient.variant, coefficient.name))


def numbered_probes(record: Measurement) -> list[tuple[str, RecordedProbe]]:
    """Return every probe with its place in the file."""
    return [(f"probes[{number}]", probe) for number, probe in enumerate(record.probes)]


def _nested(record: Measurement) -> Iterator[tuple[tuple[str, RecordedProbe], tuple[str, RecordedProbe]]]:
    """Yield pairs under one cap and with the same knobs of which the second asks for at least as much of everything."""
    groups: dict[object, list[tuple[str, RecordedProbe]]] = defaultdict(list)
    for place, probe in numbered_probes(record):
        same = msgspec.structs.replace(probe.workload, batch=1, duration_s=1.0)
        groups[probe.knobs, probe.cap_bytes, same].append((place, probe))
    for group in groups.values():
        for small, large in combinations(sorted(group, key=lambda found: _size(found[1])), 2):
            if small[1].workload.duration_s <= large[1].workload.duration_s:
                yield small, large


def _size(probe: RecordedProbe) -> tuple[int, float]:
    """The batch comes first: of two in order only the song's length remains to compare."""
    return probe.workload.batch, probe.workload.duration_s


@cache
def _code_here() -> str:
    return code_version()


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))
