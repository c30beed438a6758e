"""2,000 honest records changed by meaning: none that is accepted raises a promise."""

from pathlib import Path

import click
import pytest

from tests.lies import accepted, lied
from tests.unit.test_records_cannot_lie import tells

pytestmark = pytest.mark.soak
EXAMPLES = 2_000


def test_no_lie_of_two_thousand_raises_a_promise(tmp_path: Path) -> None:
    taken, raised = 0, []
    for seed in range(EXAMPLES):
        document = lied(seed)
        taken += accepted(document, tmp_path) is not None
        raised += tells(document, tmp_path)
    click.echo(f"\n{EXAMPLES} lies, {EXAMPLES - taken} refused, {taken} accepted, {len(raised)} raise a promise")
    assert raised == []
