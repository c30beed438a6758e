"""Probes certified cells on a virtual card as well: code that takes memory only on CUDA is seen there.

python -m ci.on_virtual_card

On the card it reads `Asked` lines from stdin and writes an `Answered` line for each. The judge starts it with the
`acestep` of the judged tree and its own code, and compares.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from acestep.budgets import System
from acestep.knobs import Backend
from acestep.units import GIB, MIB, ceil_div, gib, mib
from calibrate.git import GitError
from calibrate.probes.base import CapMethod, MeasuredStage, ProbeResult
from calibrate.probes.messages import loading_order
from calibrate.record.measurement import RecordedProbe, keeps_promise
from ci.cells import GateCell, finding_of
from ci.counting import TellCells
from ci.findings import Finding
from ci.harness import changed_paths
from ci.head_channel import head_environment
from ci.head_process import head_code

ENVIRONMENT: Final = ".venv-virtual"
"""The folder beside the judge's environment in which `make virtual-card` installs PyTorch's CUDA build."""

MODULE: Final = "ci.on_virtual_card"

CAPABILITY: Final = "8.6"
BESIDE_THE_CAP_BYTES: Final = 4 * GIB
"""How much larger the card is than the largest cap: a context, and what the driver keeps."""

NO_COPIES: Final = "refuse_page_locking=1"
"""Weights of full size are then not copied to page-locked memory, which takes their size of main memory and half a
minute; what the card holds is the same.
"""

NEAR_BYTES: Final = MIB
"""What a stage may take on a card beyond its simulation: rests of blocks, which the allocator does not split."""

RUN_ON_A_CARD: Final = ("acestep/", "calibrate/probes/")
NEVER_RUN: Final = ("acestep/ui/", "acestep/cli/", "acestep/audio/")
"""A probe runs everything in the first folders, except the second ones."""

WITH_LM_ONLY: Final = ("acestep/lm/",)

BUILD_SECONDS: Final = 900
PROBE_SECONDS: Final = 300
"""Longest times on the virtual card: for its build or start, and for each probe more."""

JudgeCells = Callable[[Sequence[GateCell]], list[Finding]]
"""Returns what else is to be said about some cells."""


def nothing_besides(cells: Sequence[GateCell]) -> list[Finding]:  # noqa: ARG001 the argument of a `JudgeCells`
    """Return no finding."""
    return []


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A probe of a record, to be run again under a cap."""

    probe: RecordedProbe
    cap_bytes: int


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What the card said, and the simulation of the same code where the card took more than the record says."""

    card: ProbeResult
    simulated: ProbeResult | None


def on_a_virtual_card(tree: Path, base: str, progress: TellCells) -> JudgeCells:
    """Return the judge of the cells that the change of a tree since `base` touches."""

    def judge(cells: Sequence[GateCell]) -> list[Finding]:
        wanted = touched(cells, _changed(tree, base))
        progress(f"{len(wanted)} of {len(cells)} cells run on a virtual card, because the change touches them.")
        interpreter = _interpreter()
        if wanted and interpreter is None:
            message = f"no cell ran on a virtual card: there is no {ENVIRONMENT}; `make virtual-card` makes it."
            return [Finding(id="G203", field="virtual", message=message)]
        return list(_judged(wanted, _answers(tree, interpreter, wanted))) if wanted and interpreter else []

    return judge


def touched(cells: Sequence[GateCell], changed: Sequence[str] | None) -> list[GateCell]:
    """Return the cells that run changed files, those of one model together; all of them if `changed` is unknown.

    One language model a tier is enough: the others run the same code, and a card needs up to half a minute for each.
    """
    here = [
        cell
        for cell in cells
        if cell.probe.knobs.backend is Backend.PT and cell.system is System.LINUX and cell.recommended
    ]
    if changed is not None:
        run = [path for path in changed if path.startswith(RUN_ON_A_CARD) and not path.startswith(NEVER_RUN)]
        thinking_only = all(path.startswith(WITH_LM_ONLY) for path in run)
        here = [cell for cell in here if run and (cell.probe.workload.with_lm or not thinking_only)]
    return sorted(here, key=lambda cell: loading_order(cell.probe.knobs))


def _changed(tree: Path, base: str) -> list[str] | None:
    """Return the files that differ from a commit; None if git cannot tell."""
    try:
        return [changed.path for changed in changed_paths(tree, base)]
    except GitError:
        return None


def _interpreter() -> Path | None:
    """Return the Python that has PyTorch's CUDA build: this one, or that beside it."""
    here = Path(sys.prefix)
    if here.name == ENVIRONMENT:
        return Path(sys.executable)
    found = here.parent / ENVIRONMENT / "bin" / "python"
    return found if found.exists() else None


def _asked(cell: GateCell) -> list[Asked]:
    """The cap that proves the cell, and that of its record, if it is another."""
    caps = dict.fromkeys((cell.proven_cap_bytes, cell.probe.cap_bytes))
    return [Asked(probe=cell.probe, cap_bytes=cap) for cap in caps]


def _answers(tree: Path, interpreter: Path, cells: Sequence[GateCell]) -> list[Answered] | str:
    """Return the answers of a card in the order of the questions, or a sentence about why there are none."""
    size = ceil_div(max(cell.probe.cap_bytes for cell in cells) + BESIDE_THE_CAP_BYTES, GIB)
    machine = ("--gib", str(size), "--capability", CAPABILITY, "--set", NO_COPIES)
    card = ("virtual_card", *machine, "--", str(interpreter), "-P", "-m", MODULE)
    questions = [msgspec.json.encode(asked) for cell in cells for asked in _asked(cell)]
    # Cards of several sizes can promise the same song under the same cap.
    distinct = list(dict.fromkeys(questions))
    answers = b""
    with head_code(tree) as search:
        for command, said in ((("virtual_card.build", "--if-changed"), b""), (card, b"\n".join(distinct) + b"\n")):
            seconds = BUILD_SECONDS + len(said.splitlines()) * PROBE_SECONDS
            done = _output([str(interpreter), "-P", "-m", *command], head_environment(*search), said, seconds)
            if done is None:
                return f"{command[0]} did not end in {seconds:g} s"
            if done.returncode:
                return f"{command[0]} ended with code {done.returncode}"
            answers = done.stdout
    try:
        found = [msgspec.json.decode(line, type=Answered) for line in answers.splitlines()]
    except msgspec.DecodeError as error:
        return f"its answers cannot be read ({error})"
    if len(found) != len(distinct):
        return f"it gave {len(found)} answers to {len(distinct)} questions"
    by_question = dict(zip(distinct, found, strict=True))
    return [by_question[question] for question in questions]


def _output(
    command: Sequence[str], environ: Mapping[str, str], said: bytes, seconds: float
) -> subprocess.CompletedProcess[bytes] | None:
    """Run a command and everything that it starts for some seconds at most; None where that is not enough."""
    with subprocess.Popen(  # noqa: S603 our own interpreter and modules
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            told, _ = process.communicate(said, timeout=seconds)
        except BaseException as error:
            # The card's program is a child of the command, and would outlive it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise
    return subprocess.CompletedProcess(command, process.returncode, told)


def _judged(cells: Sequence[GateCell], answers: list[Answered] | str) -> Iterator[Finding]:
    wanted = [(cell, asked) for cell in cells for asked in _asked(cell)]
    if isinstance(answers, str):
        yield Finding(id="G203", field="virtual", message=f"the cells did not run on a virtual card: {answers}.")
        return
    for (cell, asked), answer in zip(wanted, answers, strict=True):
        card, batch = answer.card, cell.probe.workload.batch
        if not card.verdict.answers:
            told = f"gives no answer on a virtual card: {' '.join(card.warnings) or card.verdict}"
            yield finding_of("G203", cell, "virtual", told)
        elif not keeps_promise(card, batch):
            told = f"ends {card.verdict} under {gib(asked.cap_bytes)} on a virtual card"
            yield finding_of("G301", cell, "card_cap_bytes", told, before=asked.cap_bytes, after=card.verdict.value)
        elif asked.cap_bytes == cell.probe.cap_bytes:
            yield from _stage_findings(cell, answer)


def _stage_findings(cell: GateCell, answer: Answered) -> Iterator[Finding]:
    for stage in answer.card.stages:
        allowed, took = _allowed(stage.name, cell.probe, answer.simulated), stage.peak_allocated_bytes
        if took > allowed + NEAR_BYTES:
            more = mib(took - allowed)
            told = f"{stage.name} takes {more} more on a virtual card than in the simulation of the same code"
            what = f"{stage.name}.card_allocated_bytes"
            yield finding_of("G302", cell, what, told, before=allowed, after=took, stage=stage.name)


def _allowed(name: str, recorded: RecordedProbe, simulated: ProbeResult | None) -> int:
    """The most that a stage may take: what the record says, or the simulation, with all workspaces."""
    stages = [*recorded.stages, *(simulated.stages if simulated else ())]
    blocks = simulated.blocks_at_peak.get(name, 0) if simulated else 0
    return max([blocks, *(stage.needed_bytes for stage in stages if stage.name == name)])


def _takes_more(recorded: Sequence[MeasuredStage], card: ProbeResult) -> bool:
    known = {stage.name: stage.needed_bytes for stage in recorded}
    return any(stage.peak_allocated_bytes > known.get(stage.name, 0) + NEAR_BYTES for stage in card.stages)


def main() -> None:
    """Answer on the card of this process."""
    from acestep.cli import console
    from calibrate.campaign.probers import executor_for, simulation_beside
    from calibrate.campaign.run import describe_probe
    from calibrate.executors.alone import CardAlone

    with executor_for("cuda", CapMethod.FRACTION) as executor:
        assert isinstance(executor, CardAlone)  # noqa: S101 what a card has
        simulation, _ = simulation_beside(executor.card)
        for line in sys.stdin.buffer:
            asked = msgspec.json.decode(line, type=Asked)
            probe = asked.probe
            console.notify(f"On a virtual card: {describe_probe(probe.knobs, probe.workload, asked.cap_bytes)}.")
            card = executor.prober.probe(probe.knobs, probe.workload, asked.cap_bytes)
            more = _takes_more(probe.stages, card)
            simulated = simulation.probe(probe.knobs, probe.workload, asked.cap_bytes) if more else None
            sys.stdout.buffer.write(msgspec.json.encode(Answered(card=card, simulated=simulated)) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
