"""The findings of the gate: one id, one verdict and one promise for each rule, the worst first."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from acestep.errors import Exit

FindingValue = int | float | str | bool | None


class GateVerdict(StrEnum):
    """The result for a change; only `ok` lets it pass."""

    OK = "ok"
    REGRESSED = "regressed"
    INVALID = "invalid"
    INCONCLUSIVE = "inconclusive"

    @property
    def exit(self) -> Exit:
        """The exit code of this verdict."""
        return _EXITS[self]


_EXITS = {
    GateVerdict.OK: Exit.OK,
    GateVerdict.REGRESSED: Exit.REGRESSED,
    GateVerdict.INVALID: Exit.INVALID,
    GateVerdict.INCONCLUSIVE: Exit.NOT_MEASURED,
}


class Level(StrEnum):
    """Whether a finding stops a change; an allowed regression is a notice."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


class GateRule(msgspec.Struct, frozen=True, kw_only=True):
    """One promise that a change must keep, and the verdict on a broken one."""

    id: str
    verdict: GateVerdict
    promise: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A broken promise and its place; fields that do not apply are empty. Waivers name a `field` and its `after`.

    `component` is the owner of the memory that grew, as far as the record at the base shows.
    """

    id: str
    level: Level = Level.ERROR
    message: str
    variant: str = ""
    tier: str = ""
    field: str = ""
    before: FindingValue = None
    after: FindingValue = None
    stage: str = ""
    component: str = ""


GATE_RULES: dict[str, GateRule] = {
    rule_id: GateRule(id=rule_id, verdict=verdict, promise=promise)
    for verdict, rules in {
        GateVerdict.INVALID: {
            "G101": "every file of the change can be read and follows its schema",
            "G102": "the table is the one that the records and the policy make",
            "G103": "every digest in the table is that of a record or a policy that is there",
            "G104": "no measurement file breaks a rule of `calibrate validate`",
            "G105": "every record was measured by a version of the code that this repository knows",
            "G106": "every certificate holds the longest song that fits and the next that does not",
            "G108": "a new record says what the code of the change does in the simulation",
            "G107": "the tiers folder holds plain files with plain names",
        },
        GateVerdict.REGRESSED: {
            "G301": "what was certified at the base still fits under its cap",
            "G302": "no stage holds more than the record at the base, within the tolerance",
            "G303": "songs are made in no smaller passes than at the base",
            "G304": "no stage holds more than at the last release, within the tolerance",
            "G305": "what was simulated at the base can still be simulated",
            "G306": "no stage takes more memory with every step",
            "G307": "no stage does more work than the record at the base, within the tolerance",
            "G308": "no request, as a person makes it, takes more memory than at the base, within the tolerance",
            "G309": "nothing more stays between requests, on the card or in main memory, than at the base",
            "G401": "no card has a larger budget than before",
            "G402": "a tier is certified on no larger card, and no card falls to the tier below",
            "G403": "the gate tolerates no more than before",
            "G404": "the policy asks for no less than before",
            "G501": "no variant and no tier disappears",
            "G502": "no batch is smaller",
            "G503": "no song is shorter",
            "G504": "no batch of the frontier reaches less far",
            "G505": "no language model is lost",
            "G506": "no tier offloads more",
            "G507": "no tier quantizes more",
            "G508": "nothing needs a larger card than before",
            "G509": "no evidence is lost or weaker",
            "G510": "no language model thinks of fewer songs at once",
            "G511": "no backend and no default is lost, and the guard has something to predict with",
            "G512": "no plan of a card offers less from the same table",
            "G513": "no request, as a person makes it, is granted less",
            "G514": "no request passes the limits of the table, or what the VRAM guard predicts to fit",
            "G601": "no waiver is past its day",
            "G602": "every waiver covers something",
            "G603": "no waiver allows more memory than the card has",
        },
        GateVerdict.INCONCLUSIVE: {
            "G201": "the base is there and can be read",
            "G202": "something was compared",
            "G203": "every certified cell could be probed again",
            "G204": "nothing that judges a change, or that may run without being asked for, changes unseen",
            "G205": "the judge at the base and the judge of the change find the same",
            "G206": "the pipeline does not look at what judges it, nor at the kind of device it has",
            "G207": "the code of the base can read what a change of the judge brings",
            "G208": "what a change makes worse was allowed before the change",
        },
        GateVerdict.OK: {
            "G702": "a cell that only a card has measured is judged by a card",
        },
    }.items()
    for rule_id, promise in rules.items()
}
"""Every rule by its id, the worst first."""


JUDGE_CHANGES = ("G205", "G204")
"""Rules about the judge itself: their findings come before all others."""


def verdict_of(findings: Iterable[Finding]) -> GateVerdict:
    """The worst verdict of the findings that stop a change."""
    stopping = {GATE_RULES[finding.id].verdict for finding in findings if finding.level is Level.ERROR}
    worst_first = (GateVerdict.INVALID, GateVerdict.REGRESSED, GateVerdict.INCONCLUSIVE)
    return next((verdict for verdict in worst_first if verdict in stopping), GateVerdict.OK)


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings that stop a change first: about the judge, then by rule, then by the size of the loss."""
    levels, rules = list(Level), [*JUDGE_CHANGES, *GATE_RULES]
    return tuple(sorted(findings, key=lambda f: (levels.index(f.level), rules.index(f.id), -_loss(f))))


def _loss(finding: Finding) -> float:
    numbers = [value for value in (finding.before, finding.after) if isinstance(value, int | float)]
    return abs(numbers[1] - numbers[0]) / abs(numbers[0]) if len(numbers) > 1 and numbers[0] else 1.0
