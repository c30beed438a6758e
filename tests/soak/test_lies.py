"""2,000 honest records changed by meaning: none that is accepted raises a promise."""

from pathlib import Path

import click
import pytest

from tests.lies import accepted, lied
from tests.unit.test_records_cannot_lie import raised_by

pytestmark = pytest.mark.soak
EXAMPLES = 2_000


def test_no_lie_of_two_thousand_raises_a_promise(tmp_path: Path) -> None:
    taken, raised = 0, []
    for seed in range(EXAMPLES):
        record = accepted(lied(seed), tmp_path)
        taken += record is not None
        raised += raised_by(record)
    click.echo(f"\n{EXAMPLES} lies, {EXAMPLES - taken} refused, {taken} accepted, {len(raised)} raise a promise")
    assert taken
    assert raised == []
