"""Which probes a table needs: for each certified size, the least aggressive knobs and the longest song per batch."""

from collections.abc import Callable, Sequence

import msgspec

from acestep.errors import NotMeasuredError
from acestep.knobs import Knobs, Variant
from acestep.tiers import LM_MODELS
from calibrate.choice import choose
from calibrate.knobs import configs_of, described
from calibrate.policy import Policy, TierPolicy, budget_bytes
from calibrate.probes.base import Prober
from calibrate.record import CardKind, Certificate, RecordedProbe
from calibrate.verdict import Verdict
from calibrate.workload import Workload

Progress = Callable[[str], None]
"""Called with a sentence about every finished probe."""

_SAYS_NOTHING = (Verdict.TIMEOUT, Verdict.CRASHED, Verdict.TAINTED)


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a campaign found: every probe once, and the certificates that point into them."""

    probes: tuple[RecordedProbe, ...]
    certificates: tuple[Certificate, ...]


def run_campaign(
    prober: Prober, policy: Policy, variant: Variant, sizes_gib: Sequence[float], progress: Progress
) -> Findings:
    """Every probe that the rows of these sizes rest on; `NotMeasuredError` when one ends without an answer."""
    campaign = _Campaign(prober, policy, progress)
    for size in sizes_gib:
        campaign.certify(variant, policy.tier_of(size), budget_bytes(size, policy))
    return Findings(probes=tuple(campaign.probes), certificates=tuple(campaign.certificates))


def most_probes(policy: Policy, sizes: int) -> int:
    """The most probes a campaign over that many sizes can take."""
    halvings = max(len(policy.durations_s.values) - 2, 0).bit_length()
    backends = max(len(tier.backends_allowed) for tier in policy.tiers)
    formats = max(len(tier.lm_quantizations) for tier in policy.tiers)
    models = backends * len(LM_MODELS)
    rungs = len(policy.preference) * (1 + formats * models)
    boundaries = rungs + formats * models + (1 + models) * (len(policy.batches.values) - 1)
    return sizes * (boundaries * (2 + halvings) + len(configs_of(Knobs())) + 1)


class _Campaign:
    """The probes asked so far; asking the same one again costs nothing."""

    def __init__(self, prober: Prober, policy: Policy, progress: Progress) -> None:
        self.probes: list[RecordedProbe] = []
        self.certificates: list[Certificate] = []
        self._prober = prober
        self._policy = policy
        self._progress = progress
        self._asked: dict[tuple[Knobs, Workload, int], int] = {}
        self._reach: dict[tuple[Knobs, int, int], int] = {}

    def certify(self, variant: Variant, decided: TierPolicy, cap_bytes: int) -> None:
        """One size: everything that is asked to choose what its tier gets, and the configs at the limits found."""

        def ask(knobs: Knobs, batch: int, at_most: int) -> int:
            key = (knobs, batch, cap_bytes)
            if key not in self._reach:
                self._reach[key] = self._boundary(knobs, cap_bytes, batch=batch, at_most=at_most)
            return self._reach[key]

        choice = choose(ask, self._policy, decided, variant)
        batch, longest = choice.frontier.headline_batch(lm=False), choice.frontier.longest(1, lm=False)
        if batch:
            for knobs in configs_of(choice.knobs):
                self._probe(knobs, Workload(batch=batch, duration_s=float(longest)), cap_bytes)

    def _boundary(self, knobs: Knobs, cap_bytes: int, *, batch: int, at_most: int) -> int:
        """Certify the longest song of a batch, up to `at_most` seconds; returns its seconds, 0 for none."""
        grid = [seconds for seconds in self._policy.durations_s.values if seconds <= at_most]
        if not grid:
            return 0
        fits = fails = None
        low, high = 0, len(grid)
        # The two ends first: usually the longest song fits, and where the weights do not, no song does.
        trials = [high - 1, low]
        while low < high:
            middle = trials.pop(0) if trials else (low + high) // 2
            workload = Workload(batch=batch, duration_s=float(grid[middle]), with_lm=knobs.lm is not None)
            index = self._probe(knobs, workload, cap_bytes)
            if self.probes[index].counts:
                fits, low = index, middle + 1
            else:
                fails, high = index, middle
        self.certificates.append(Certificate(knobs=knobs, cap_bytes=cap_bytes, batch=batch, fits=fits, fails=fails))
        return 0 if fits is None else grid[low - 1]

    def _probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> int:
        """Where the answer stands in `probes`."""
        key = (knobs, workload, cap_bytes)
        if key not in self._asked:
            result = self._prober.probe(knobs, workload, cap_bytes)
            if result.verdict in _SAYS_NOTHING:
                raise NotMeasuredError(
                    f"a probe ended {result.verdict}, which says nothing about the fit ({described(knobs)},"
                    f" batch {workload.batch}, {workload.duration_s:g} s); run it again on an idle card"
                )
            timed = self._prober.device != CardKind.SIMULATED
            self._asked[key] = len(self.probes)
            self.probes.append(RecordedProbe.of(knobs, workload, result, timed=timed))
            self._progress(f"{describe_probe(knobs, workload, cap_bytes)}: {result.verdict}")
        return self._asked[key]


def describe_probe(knobs: Knobs, workload: Workload, cap_bytes: int) -> str:
    """What a probe asks, for one line of progress."""
    songs = f"{workload.batch} x {workload.duration_s:g} s"
    return f"{songs} under {cap_bytes / 2**30:.2f} GiB, {described(knobs)}"
