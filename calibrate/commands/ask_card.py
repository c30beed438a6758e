"""`python -m calibrate reality --ask`: the card in this machine beside the boundaries of a simulated record."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from acestep.budgets import System
from acestep.cli import console
from acestep.errors import Exit, UsageError
from acestep.hardware.card import nameplate_gib
from acestep.units import MIB, gib_to_bytes
from calibrate.commands.campaign_options import models_asked

if TYPE_CHECKING:
    from calibrate.campaign.beside import CardRun, CardTotal
    from calibrate.campaign.journal import Journal
    from calibrate.executors.base import Executor
    from calibrate.executors.questions import Probed, Question

NEVER: Final = "-"


def ask_card(
    record: Path,
    output: Path,
    tiers: tuple[float, ...],
    lm: tuple[str | None, ...],
    cap_method: str,
    *,
    anew: bool,
    compiled: bool,
    resume: bool,
    as_json: bool,
) -> int:
    """Ask the card, and write its answers beside those of the simulation; a journal keeps them until then.

    The simulation's answers are the record's, unless it is asked `anew`, or the card has other kernels. It has no
    compiler: `compiled` runs are compared with what it says of the same runs without one.
    """
    from acestep.output_file import output_file
    from calibrate.campaign.beside import AskedCard, card_run, questions_beside, recorded_answers, runs_text
    from calibrate.campaign.journal import open_journal
    from calibrate.campaign.probers import alone_on, simulation_beside
    from calibrate.executors.cards import identity_of
    from calibrate.files import digest
    from calibrate.fingerprint import fingerprint
    from calibrate.probes.base import CapMethod
    from calibrate.record.measurement import RecordedCardKind, load_measurement
    from calibrate.table.knobs import eager
    from calibrate.table.policy import budget_bytes, load_policy

    policy, method, simulated = load_policy(), CapMethod(cap_method), load_measurement(record)
    if simulated.card.kind is not RecordedCardKind.SIMULATED:
        raise UsageError(f"{record} was measured on {simulated.card.name}; --ask needs a simulated record")
    wanted = sorted({nameplate_gib(gib_to_bytes(size)) for size in tiers}) or policy.certified_sizes_gib
    sizes = {budget_bytes(size, policy, simulated.card.system): size for size in wanted}
    models = models_asked(lm)
    questions = questions_beside(simulated, sizes, models if lm and models else (None, *models))
    if not questions:
        raise UsageError(f"{record} has no boundary for these --tiers and --lm")
    runs = []
    with output_file(output) as write, closing(alone_on("cuda", method, in_float32=True)) as executor:
        simulation, flash = simulation_beside(executor.card)
        capability = ".".join(map(str, executor.card.capability))
        same_system = flash is (simulated.card.system is System.LINUX)
        same_kernels = same_system and executor.card.capability == simulated.card.capability
        known = recorded_answers(simulated) if same_kernels and not anew else {}
        card = AskedCard(
            name=executor.card.name,
            capability=capability,
            flash=flash,
            cap_method=method,
            compiled=compiled,
            exact=not known,
        )
        holds_for = fingerprint(card=identity_of(executor.card), cap_method=method, budget=digest(policy.budget))
        with open_journal(output, holds_for, resume=resume) as journal:
            for number, question in enumerate(questions, 1):
                knobs = msgspec.structs.replace(question.knobs, compile=compiled)
                answer = _answer(executor, journal, msgspec.structs.replace(question, knobs=knobs))
                expected = known.get(question)
                if expected is None or answer.probe.withheld_bytes:
                    cap = max(answer.probe.allocator_bytes, 1)
                    expected = simulation.probe(eager(knobs), question.workload, cap)
                runs.append(card_run(card, sizes[question.cap_bytes], answer, expected))
                console.notify(f"{number}/{len(questions)} {_told(runs[-1])}")
            write(runs_text(runs))
            journal.remove()
    return tell_totals(runs, as_json=as_json)


def tell_totals(runs: "Sequence[CardRun]", *, as_json: bool) -> int:
    """Print the totals of some runs, and those that ended otherwise; the exit code says whether there are any."""
    from calibrate.campaign.beside import totals

    found = totals(runs)
    console.answer(found, lambda found: _print(found, runs), as_json=as_json)
    return Exit.OK if all(total.equal == total.boundaries for total in found) else Exit.REGRESSED


def _answer(executor: "Executor", journal: "Journal", question: "Question") -> "Probed":
    """The card's answer to a question; one that was given in an interrupted run is not asked for again."""
    from calibrate.executors.questions import Probed

    entry = journal.entries.get(question)
    if entry is None:
        entry = executor.one_of([question], lambda: ())
        journal.keep(entry)
    assert isinstance(entry, Probed)  # noqa: S101 a question is answered by a probe
    return entry


def _told(run: "CardRun") -> str:
    from calibrate.campaign.run import describe_probe

    how = "alike" if run.alike else f"{run.measured} on the card and {run.simulated} in simulation"
    return f"{describe_probe(run.knobs, run.workload, run.cap_bytes)}: {how}"


def _print(found: "Sequence[CardTotal]", runs: "Sequence[CardRun]") -> None:
    import click

    from acestep.stage import Stage
    from calibrate.screen import print_table

    stages = [stage for stage in Stage if any(stage in total.apart for total in found)]
    for what, title in enumerate(("allocated", "reserved")):
        rows = [
            (
                total.variant.value,
                total.card.capability,
                "yes" if total.card.flash else "no",
                total.card.cap_method.value,
                "yes" if total.lm else "no",
                "yes" if total.card.compiled else "no",
                "exact" if total.card.exact else "allowance",
                " ".join(f"{size:g}" for size in total.sizes_gib),
                str(total.runs),
                f"{total.equal} of {total.boundaries}",
                *(f"{total.apart[s][what] / MIB:+.1f}" if s in total.apart else NEVER for s in stages),
            )
            for total in found
        ]
        columns = (
            "variant",
            "capability",
            "flash",
            "cap",
            "LM",
            "compiled",
            "workspaces",
            "cards, GiB",
            "runs",
            "equal boundaries",
            *stages,
        )
        print_table(f"card against simulation: equal boundaries, and the farthest peak {title}, MiB", columns, rows)
    for run in runs:
        if not run.alike:
            click.echo(f"{_told(run)}{f' ({run.problem})' if run.problem else ''}")
