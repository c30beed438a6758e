"""Runs a campaign with its journal, and writes its measurement file."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from calibrate.campaign import probers
from calibrate.campaign.expected import Expect, everything_fits
from calibrate.campaign.journal import AnsweredBy, open_journal
from calibrate.campaign.run import CampaignResult, CampaignScope, TellPace, TellProgress, run_campaign
from calibrate.executors.base import Executor, ExecutorStoppedError
from calibrate.executors.cards import identity_of
from calibrate.files import digest, pretty_json
from calibrate.fingerprint import fingerprint
from calibrate.probes.base import CapMethod
from calibrate.record.measurement import Coefficient, Measurement, RecordedCardKind, measurement_of
from calibrate.table.policy import Policy


class InterruptedCampaignError(Exception):
    """A campaign was interrupted; the text says how many answers its journal keeps, and where."""

    def __init__(self, kept: int, journal: Path) -> None:
        answers = "1 answer is" if kept == 1 else f"{kept} answers are"
        kept_so_far = f"Interrupted; {answers} kept in {journal}. Go on with the same command and --resume."
        super().__init__(kept_so_far if kept else "Interrupted before the first answer.")
        self.kept = kept


class Campaigning(msgspec.Struct, frozen=True, kw_only=True):
    """What a campaign is run with, besides its executor; `expect` foretells answers, for the time that is left only."""

    policy: Policy
    scope: CampaignScope
    cap_method: CapMethod
    resume: bool
    expect: Expect = everything_fits


def run_and_record(
    executor: Executor,
    campaigning: Campaigning,
    output: Path,
    write: Callable[[str], None],
    tell: TellProgress,
    paced: TellPace = lambda _: None,
) -> CampaignResult:
    """Run a campaign, and `write` the text of its measurement file, whose journal is next to `output` until then.

    Raises `NotMeasuredError` if a probe ends without an answer, `InterruptedCampaignError` after Ctrl-C.
    """
    policy, scope, cap_method = campaigning.policy, campaigning.scope, campaigning.cap_method
    card = f"{identity_of(executor.card)} {scope.system}"
    holds_for = fingerprint(card=card, cap_method=cap_method, budget=digest(policy.budget), setting=executor.setting)
    with open_journal(output, holds_for, resume=campaigning.resume) as journal:
        if campaigning.resume:
            tell(f"{len(journal.entries)} answers were there already.")
        try:
            findings = run_campaign(
                executor,
                policy,
                scope,
                tell,
                method=probers.method_for(executor.device),
                known=journal.entries,
                keep=lambda entry: journal.keep(entry, _answered_by(executor)),
                paced=paced,
                expect=campaigning.expect,
            )
        except (KeyboardInterrupt, ExecutorStoppedError):
            raise InterruptedCampaignError(journal.count, journal.path) from None
        write(pretty_json(_measurement(executor, cap_method, scope, findings, journal.by)))
        journal.remove()
    return findings


def _answered_by(executor: Executor) -> AnsweredBy:
    """The cards of an executor that have answered so far; a fleet leaves their UUIDs on their machines."""
    card = executor.card
    alone = (digest(card.uuid),) if executor.device == RecordedCardKind.CUDA and card.uuid else ()
    return AnsweredBy(serials=executor.serials or alone, conditions=executor.conditions)


def _measurement(
    executor: Executor, cap_method: CapMethod, scope: CampaignScope, findings: CampaignResult, by: AnsweredBy
) -> Measurement:
    # A card that answered alone is not named.
    serials = by.serials if executor.serials or len(by.serials) > 1 else ()
    coefficients = (
        Coefficient(variant=scope.variant, name=name, value=value) for name, value in findings.memory_model.items()
    )
    return measurement_of(
        probers.recorded_card(executor, scope.system, serials),
        findings.probes,
        findings.certificates,
        tuple(coefficients),
        cap_method,
        by.conditions,
        executor.setting.libraries,
    )
