"""A hundred thousand boundary searches on seeded cards; `make test` runs a sample of them."""

import click
import pytest

from tests.oracles import survey

pytestmark = pytest.mark.soak
SEARCHES = 12_500
NOISY = [(rate, error) for rate in (0.01, 0.02, 0.05) for error in (0.1, 0.5)]


def test_without_noise_a_search_asks_four_points_at_most_on_average() -> None:
    found = survey(range(SEARCHES), spurious_rate=0.0, prior_error=0.1)
    click.echo(f"\n{SEARCHES} searches without noise: {found.mean_points:.2f} points on average, {found.wrong} wrong")
    assert (found.wrong, found.too_long, found.uncertain) == (0, 0, 0)
    assert found.mean_points <= 4.0


@pytest.mark.parametrize(("rate", "error"), NOISY)
def test_no_search_is_wrong_under_spurious_failures(rate: float, error: float) -> None:
    found = survey(range(SEARCHES), spurious_rate=rate, prior_error=error)
    click.echo(
        f"\n{SEARCHES} searches at {rate:.0%} spurious failures, prior off by up to {error:.0%}: {found.wrong} wrong,"
        f" {found.mean_points:.2f} points and {found.mean_probes:.1f} probes on average"
    )
    assert (found.wrong, found.too_long, found.uncertain) == (0, 0, 0)


def test_no_search_hides_that_its_answers_contradict_each_other() -> None:
    found = survey(range(SEARCHES), spurious_rate=0.0, prior_error=0.1, pocket=True)
    click.echo(f"\n{SEARCHES} searches among pockets of failures: {found.uncertain} saw one and called it uncertain")
    assert (found.false_proofs, found.unreported, found.too_long) == (0, 0, 0)
