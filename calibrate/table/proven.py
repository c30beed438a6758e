"""One tier as one record proves it: the limits, and the probes that show them."""

from enum import Enum

import msgspec

from acestep.errors import NotMeasuredError
from acestep.evidence import EvidenceKind
from acestep.knobs import KNOBS, Backend, Knobs, Variant
from acestep.stage import Stage
from acestep.tiers import BATCHES
from calibrate.record.measurement import Certificate, Measurement, RecordedProbe
from calibrate.table.choice import TierChoice
from calibrate.table.knobs import Config, configured
from calibrate.table.policy import TierPolicy
from calibrate.workload import Workload


class LmEstimate(Enum):
    """Why the limits with a language model are estimated although the others were measured or simulated."""

    BACKEND_NOT_PROBED = "backend not probed"
    VLLM_COMPUTED = "vllm computed"


class ProvenTier(msgspec.Struct, frozen=True, kw_only=True):
    """One tier as one record proves it."""

    record: Measurement
    decided: TierPolicy
    cap_bytes: int
    choice: TierChoice

    @property
    def rank(self) -> tuple[int, int, tuple[int, ...], tuple[int, ...], str]:
        """Sorts the row that decides first: strongest evidence, then most frugal knobs, then smallest promise.

        Of equal promises the one with fewer language models decides, or whose others need more offload or reach less.
        """
        frontier = self.choice.frontier
        promise = tuple(frontier.of(lm=lm)[str(batch)] for lm in (False, True) for batch in BATCHES)
        weakness = list(EvidenceKind).index(self.record.evidence)
        offered = [len(self.choice.lm.models), len(self.choice.others)]
        for other in self.choice.others:
            offered += [-KNOBS["offload"].rank(other.rung.offload), *other.reach.values()]
        return weakness, -self.choice.rung, promise, tuple(offered), self.record.digest

    @property
    def lm_estimate(self) -> LmEstimate | None:
        """Why the limits with a language model are estimated; None if they come from runs only."""
        if self.decided.backend not in self.choice.lm.backends:
            return LmEstimate.BACKEND_NOT_PROBED
        # vLLM's memory is computed, not run, until a card has run it.
        computed = self.record.evidence is EvidenceKind.SIMULATED and Backend.VLLM in self.choice.lm.backends
        return LmEstimate.VLLM_COMPUTED if computed else None

    def at_limits(self, config: Config) -> RecordedProbe | None:
        """Return the probe of a config at the tier's own limits; None if no song fits the tier at all."""
        frontier = self.choice.frontier
        batch = frontier.headline_batch(lm=False)
        if batch == 0:
            return None
        limits = Workload(batch=batch, duration_s=float(frontier.longest(1, lm=False)))
        return self._probe(configured(self.choice.knobs, config), limits)

    def fits(self, config: Config) -> bool:
        """Return whether a config fits at the tier's own limits."""
        probe = self.at_limits(config)
        return probe is not None and probe.counts

    def fewest_planned(self, model: str) -> tuple[int, RecordedProbe]:
        """Return the fewest songs, over the backends, that a language model plans in one pass at the tier's limits.

        The second value is the probe that shows it.
        """
        frontier, lm = self.choice.frontier, self.choice.lm
        other = next((other for other in self.choice.others if other.model == model), None)
        batch, seconds = frontier.headline_batch(lm=True), frontier.longest(1, lm=True)
        knobs = [lm.knobs(self.choice.knobs, model, backend) for backend in lm.backends]
        if other is not None:
            batch, seconds = other.headline
            knobs = [other.knobs(backend) for backend in other.backends]
        limits = Workload(batch=batch, duration_s=float(seconds), with_lm=True)
        probes = [self._probe(asked, limits) for asked in knobs]
        planned = [(s.songs_per_pass, probe) for probe in probes for s in probe.stages if s.name == Stage.THINK]
        return min(planned, key=lambda found: found[0])

    def certificate(self, knobs: Knobs, batch: int) -> Certificate | None:
        """Return the certificate for a batch under the tier's cap; None if the search did not need to ask."""
        own = (knobs, self.cap_bytes, batch)
        found = [c for c in self.record.certificates if (c.knobs, c.cap_bytes, c.batch) == own]
        return found[-1] if found else None

    def _probe(self, knobs: Knobs, workload: Workload) -> RecordedProbe:
        asked = (knobs, workload)
        under = (probe for probe in self.record.probes if probe.cap_bytes == self.cap_bytes)
        found = next((probe for probe in under if (probe.knobs, probe.workload) == asked), None)
        if found is None:
            raise uncovered(self.decided, knobs.variant)
        return found


def uncovered(decided: TierPolicy, variant: Variant) -> NotMeasuredError:
    """Return the error for a tier of which a record lacks a probe."""
    return NotMeasuredError(
        f"no record covers {decided.id} for {variant} at the budget of {decided.certified_gib} GiB under this policy;"
        f" run `python -m calibrate run --variant {variant} --tiers {decided.certified_gib} -o FILE`"
    )
