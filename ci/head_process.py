"""Simulates with the code of a change in a process of its own: JSON goes in and out, nothing is unpickled.

python -P -m ci.head_process SEED, with the change's `acestep` in front of the judge's on PYTHONPATH
"""

import gc
import os
import queue
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import msgspec

from acestep.budgets import System
from acestep.errors import NotMeasuredError
from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.knobs import Knobs, Variant
from acestep.tiers import TierTable
from calibrate.probes.base import ProbeResult, Simulation
from calibrate.workload import Workload
from ci.checkout import CHECKOUT
from ci.head_channel import HeadChannel, HeadGoneError
from ci.scenarios.scenario import Scenario, ScenarioResult

if TYPE_CHECKING:
    from calibrate.probes.simulated.memo import Regions

Wanted = TypeVar("Wanted")


class _Question(msgspec.Struct, frozen=True, kw_only=True):
    """A probe under a cap, the smallest caps where there is none, or something of another kind.

    That is the coefficients of the variant to `fit`, or a `scenario` under a `table` in JSON. `capability` and
    `system` decide the card's kernels.
    """

    knobs: Knobs | None = None
    workload: Workload | None = None
    cap_bytes: int | None = None
    fit: Variant | None = None
    scenario: Scenario | None = None
    table: str = ""
    capability: tuple[int, int] = SIMULATED_CAPABILITY
    system: System = System.LINUX


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One of these is given; `problem` says why there is no answer."""

    result: ProbeResult | None = None
    caps: dict[str, int] | None = None
    coefficients: dict[str, float] | None = None
    outcome: ScenarioResult | None = None
    problem: str = ""


class HeadSimulation:
    """The simulated card of a change's code, in another process."""

    device = "simulated"

    def __init__(self, channel: HeadChannel) -> None:
        self.capability, self.system = SIMULATED_CAPABILITY, System.LINUX
        self._known: dict[_Question, ProbeResult] = {}
        self._channel = channel

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        """As `Prober.probe`; raises `HeadGoneError` where the process has ended."""
        question = self._question(knobs, workload, cap_bytes)
        # The base and the last release mostly ask the same.
        if question not in self._known:
            self._known[question] = _given(self._ask(question).result)
        return self._known[question]

    def smallest_caps(self, knobs: Knobs, workload: Workload) -> dict[str, int]:
        """As `Simulation.smallest_caps`; raises `HeadGoneError` where the process has ended."""
        return _given(self._ask(self._question(knobs, workload, None)).caps)

    def memory_model(self, variant: Variant) -> dict[str, float]:
        """As `Simulation.memory_model`; raises `HeadGoneError` where the process has ended."""
        return _given(self._ask(_Question(fit=variant, capability=self.capability)).coefficients)

    def outcome_of(self, scenario: Scenario, table: TierTable) -> ScenarioResult:
        """Return what came of a scenario under a table.

        Raises `NotMeasuredError` where its code failed, and `HeadGoneError` where the process has ended.
        """
        return _given(self._ask(_Question(scenario=scenario, table=msgspec.json.encode(table).decode())).outcome)

    def of(self, capability: tuple[int, int], system: System) -> "HeadSimulation":
        """Return the same process as the simulation of a card of another compute capability or system."""
        other = copy(self)
        other.capability, other.system = capability, system
        return other

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._channel.close()

    def _question(self, knobs: Knobs, workload: Workload, cap_bytes: int | None) -> _Question:
        return _Question(
            knobs=knobs, workload=workload, cap_bytes=cap_bytes, capability=self.capability, system=self.system
        )

    def _ask(self, question: _Question) -> _Answer:
        line = self._channel.ask(msgspec.json.encode(question) + b"\n")
        try:
            answer = msgspec.json.decode(line, type=_Answer)
        except msgspec.DecodeError as error:
            raise HeadGoneError(f"a process that simulates gave an answer that is none: {error}") from None
        if answer.problem:
            raise NotMeasuredError(answer.problem)
        return answer


def simulation_on(simulation: Simulation, capability: tuple[int, int], system: System) -> Simulation:
    """Return the simulation of a card of this capability and system, where the code of a change is asked."""
    return simulation.of(capability, system) if isinstance(simulation, HeadSimulation) else simulation


def _given(value: Wanted | None) -> Wanted:
    if value is None:
        raise NotMeasuredError("a process that simulates answered something else")
    return value


@contextmanager
def head_code(tree: Path) -> Iterator[tuple[Path, ...]]:
    """Folders to search for modules: the change's `acestep` alone, copied without compiled files, then the judge's."""
    with TemporaryDirectory() as place:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(tree / "acestep", Path(place) / "acestep", ignore=ignored, symlinks=True)
        for name in ("tiers", "pyproject.toml"):
            if (source := tree / name).is_dir():
                shutil.copytree(source, Path(place) / name, symlinks=True)
            elif source.is_file():
                shutil.copy(source, place)
        yield Path(place), CHECKOUT


def simulate(seed: int) -> None:
    """Answer questions on stdin until it is closed, with the `acestep` that is found first."""
    answers = os.fdopen(os.dup(1), "wb")
    # What the code prints is no answer.
    os.dup2(2, 1)
    asked: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    from calibrate.campaign.probers import simulation
    from calibrate.probes.simulated.memo import Regions

    regions = Regions(Random(seed))  # noqa: S311 it draws a sample, not a secret
    probers: dict[tuple[tuple[int, int], System], Simulation] = {}
    while True:
        question = msgspec.json.decode(asked.get(), type=_Question)
        card = question.capability, question.system
        if card not in probers:
            sample = Random(seed)  # noqa: S311 it draws a sample, not a secret
            probers[card] = simulation(sample=sample, capability=question.capability, system=question.system)
            # Imported objects are frozen, so that garbage collection of the traces does not scan them.
            gc.freeze()
        answers.write(msgspec.json.encode(_answered(probers[card], question, regions)) + b"\n")
        answers.flush()


def _answered(prober: Simulation, question: _Question, regions: "Regions") -> _Answer:
    knobs, workload = question.knobs, question.workload
    # The code of a change may fail in any way, and the judge goes on.
    try:
        if question.scenario is not None:
            from ci.scenarios.run import outcome_of

            try:
                return _Answer(outcome=outcome_of(question.scenario, question.table, regions))
            finally:
                # The end of a scenario lets go of what was frozen.
                gc.collect()
                gc.freeze()
        if question.fit is not None:
            return _Answer(coefficients=prober.memory_model(question.fit))
        if knobs is None or workload is None:
            return _Answer(problem="a question without a run")
        if question.cap_bytes is None:
            return _Answer(caps=prober.smallest_caps(knobs, workload))
        return _Answer(result=prober.probe(knobs, workload, question.cap_bytes))
    except NotMeasuredError as error:
        return _Answer(problem=str(error))
    except (Exception, SystemExit) as error:
        return _Answer(problem=f"{type(error).__name__}: {error}")


def _listen(asked: "queue.SimpleQueue[bytes]") -> None:
    """Receive questions during work too, so that the end of the judge is noticed at once."""
    with suppress(OSError):
        for line in sys.stdin.buffer:
            asked.put(line)
    os._exit(0)


if __name__ == "__main__":
    simulate(int(sys.argv[1]))
