"""The gate's workflow with its own commands: on a change of nothing, and on one that takes more and cheats."""

from pathlib import Path

import pytest

from tests.code_faults import CODE_FAULTS
from tests.gate_trees import one_tier_house, one_tier_tree, put_in
from tests.gate_workflow import pull_request, run_workflow
from tests.integration.test_gate_judges import cheat, require_seen_through

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_tier_tree(tmp_path_factory.mktemp("upstream"), one_tier_house(None, seconds=60))


def test_a_change_of_nothing_is_green(upstream: Path, tmp_path: Path) -> None:
    pull_request(upstream, tmp_path)
    done = run_workflow("gate", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 cells probed again" in done.stdout


def test_code_that_takes_more_is_red_whatever_the_change_does_to_its_judge(upstream: Path, tmp_path: Path) -> None:
    _, head = pull_request(upstream, tmp_path)
    put_in(head, CODE_FAULTS[2])
    cheat(head, tmp_path / "imports")
    done = run_workflow("gate", tmp_path)
    require_seen_through(done, tmp_path / "imports")
    assert "only the judge of the base finds G30" in done.stdout
