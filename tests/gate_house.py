"""A tiers folder for the gate: documents that a test may damage, written where the gate reads them."""

import copy
import datetime
import json
import subprocess
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from acestep.knobs import Variant
from acestep.tiers import BATCHES
from calibrate.files import pretty_json
from calibrate.probes.base import Simulation
from calibrate.record.measurement import Measurement, content_digest
from calibrate.table.merge import build_table
from calibrate.table.policy import Policy, load_policy
from ci.judge import Judgement, judge
from ci.tolerance import Tolerance
from tests.fakes import AnalyticProber, measured

Document = dict[str, Any]
TODAY = datetime.date(2030, 6, 1)
STATES = ("without_lm", "with_lm")


class House:
    """The files of a tiers folder as documents."""

    def __init__(self, record: Measurement, policy: Policy | None = None) -> None:
        policy = policy or load_policy()
        self.table: Document = json.loads(pretty_json(build_table([record], policy)))
        self.policy: Document = json.loads(pretty_json(policy))
        self.record: Document = json.loads(pretty_json(record))
        self.waivers: list[Document] = []
        self.tolerance: Document = msgspec.to_builtins(Tolerance())
        self.texts: dict[str, str | None] = {}

    @property
    def tiers(self) -> list[Document]:
        return self.table["variants"]["turbo"]["tiers"]  # type: ignore[no-any-return]

    def seal(self) -> None:
        """Give the record the digest of its content, and the table that digest."""
        old = self.record["digest"]
        self.record["digest"] = content_digest(msgspec.convert(self.record, Measurement))
        self.table = json.loads(json.dumps(self.table).replace(old, self.record["digest"]))

    def written(self, checkout: Path) -> Path:
        """The path of the table in a checkout that has these files; a text of None is a file that is not there."""
        folder = checkout / "tiers"
        (folder / "measurements").mkdir(parents=True)
        texts = {
            "generated_tiers.json": json.dumps(self.table),
            "policy.json": json.dumps(self.policy),
            "measurements/fake.json": json.dumps(self.record),
            "waivers.json": json.dumps(self.waivers),
            "tolerance.json": json.dumps(self.tolerance),
        } | self.texts
        for name, text in texts.items():
            if text is not None:
                (folder / name).write_text(text, encoding="utf-8")
        return folder / "generated_tiers.json"


@cache
def _good() -> House:
    return House(measured())


def good() -> House:
    """What the base promises, to be changed at will."""
    return copy.deepcopy(_good())


def set_reach(tier: Document, state: str, reach: dict[str, int]) -> None:
    """Another frontier, with the headline that follows from it."""
    tier["frontier"][state] |= reach
    entries = tier["frontier"][state]
    tier["max_duration_s"][state] = entries["1"]
    tier["max_batch"][state] = max((n for n in BATCHES if entries[str(n)] == entries["1"] > 0), default=0)


def judged(
    head: House,
    place: Path,
    *,
    base: House | None = None,
    prober: Simulation | None = None,
    table_only: bool = False,
    variants: Collection[Variant] = (),
) -> Judgement:
    """The gate's verdict on a folder against a good one, or another, in files."""
    base_table = (base or good()).written(place / "base")
    head.written(place / "head")
    return judge(
        place / "head",
        base_table,
        None,
        TODAY,
        table_only=table_only,
        progress=lambda _: None,
        prober=prober or AnalyticProber(),
        variants=variants,
    )


def stopping(judgement: Judgement) -> set[str]:
    """The ids of the findings that stop the change."""
    return {finding.id for finding in judgement.findings if finding.level == "error"}


def committed(checkout: Path) -> None:
    """Make a git commit of everything in a folder."""
    for arguments in (
        ("init", "-q"),
        ("add", "-A"),
        ("-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-q", "-m", "all of it"),
    ):
        command = ["git", "-C", str(checkout), *arguments]
        subprocess.run(command, check=True, capture_output=True)


Change = Callable[[House], object]
