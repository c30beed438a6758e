"""The two probes behind a cell: the largest run that fits and the smallest that does not. Pure.

They are looked up in the record with the questions that `calibrate.table.choice` and `calibrate.table.merge` ask.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import msgspec

from acestep.knobs import LM_MODELS, Knobs, Quantization
from acestep.tiers import BATCHES, lm_rank
from calibrate.record.measurement import Certificate, RecordedProbe
from calibrate.table.choice import thinking
from calibrate.table.knobs import ladder
from calibrate.table.merge import BOUNDARY_CONFIGS
from calibrate.table.policy import Policy
from calibrate.table.proven import ProvenTier
from calibrate.workload import Workload

NO_MODEL = "No language model fits this tier."
NO_SONG = "Not even the shortest song fits."


class CertificateSide(msgspec.Struct, frozen=True, kw_only=True):
    """A probe of a record, with its tier."""

    row: ProvenTier
    probe: RecordedProbe


class Witnesses(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides of a limit; a side without a probe says why there is none."""

    fits: CertificateSide | None = None
    no_fits: str = ""
    fails: CertificateSide | None = None
    no_fails: str = ""


class TierWitnesses:
    """The witnesses of one tier's limits."""

    def __init__(self, row: ProvenTier, policy: Policy) -> None:
        self._row = row
        self._policy = policy
        self._lm = row.choice.lm
        self._reached = row.choice.frontier.longest(1, lm=True)

    def frontier(self, batch: int, *, lm: bool) -> Witnesses:
        """Return the witnesses of the longest song of a batch."""
        if lm and not self._lm.models:
            return self.language_models()
        seconds = self._row.choice.frontier.longest(batch, lm=lm)
        own = [c for knobs in self._knobs(lm=lm) if (c := self._row.certificate(knobs, batch)) is not None]
        deciding = min(own, key=lambda c: (self._seconds(c), c.fails is None), default=None)
        fits = self._at(deciding, seconds) if deciding is not None and seconds else None
        if deciding is not None and deciding.fails is not None:
            return self._witnesses(fits, deciding)
        if seconds == self._policy.durations_s.values[-1]:
            return Witnesses(fits=fits, no_fails=f"{seconds} s is the longest song that policy.json lets us try.")
        # The search stopped at the length that a smaller batch, or the run without a language model, had reached.
        smaller = max((size for size in BATCHES if size < batch), default=0)
        if not smaller and not lm:
            return self._witnesses(fits, None)
        limit = self.frontier(smaller or batch, lm=lm and bool(smaller))
        return msgspec.structs.replace(limit, fits=fits, no_fits="" if fits else limit.no_fits)

    def largest_batch(self, *, lm: bool) -> Witnesses:
        """Return the witnesses of the largest batch with the longest song."""
        batch = self._row.choice.frontier.headline_batch(lm=lm)
        more = min((size for size in BATCHES if size > batch > 0), default=0)
        if not batch or not more:
            found = self.frontier(batch or 1, lm=lm)
            largest = f"A batch of {batch} is the largest that policy.json lets us try."
            return msgspec.structs.replace(found, fails=None, no_fails=largest) if batch else found
        fails = self.frontier(more, lm=lm).fails
        same = self._row.certificate(fails.probe.knobs, batch) if fails is not None else None
        seconds = self._row.choice.frontier.longest(batch, lm=lm)
        fits = self.frontier(batch, lm=lm).fits if same is None else self._at(same, seconds)
        return Witnesses(fits=fits, fails=fails)

    def language_models(self) -> Witnesses:
        """Return the witnesses of the offered models: the largest, and the next larger one in its smallest weights."""
        if not self._row.choice.frontier.longest(1, lm=False):
            return self.frontier(1, lm=False)
        if not self._lm.models:
            failing = self.model(LM_MODELS[0]).fails
            return Witnesses(no_fits=NO_MODEL, fails=failing)
        largest = self._lm.models[-1]
        fits = self.model(largest).fits
        if largest == LM_MODELS[-1]:
            return Witnesses(fits=fits, no_fails=f"{largest} is the largest language model there is.")
        return Witnesses(fits=fits, fails=self.model(LM_MODELS[lm_rank(largest) + 1]).fails)

    def model(self, model: str) -> Witnesses:
        """Return the witnesses of one language model at the longest song: it fits in the tier's weights, or in none."""
        if model in self._lm.models:
            return Witnesses(fits=self._thinks(model), no_fails=f"{model} fits.")
        failing = self._too_short(self._row.choice.knobs, reversed(self._row.decided.lm_quantizations), [model])
        if failing is None:
            return self.frontier(1, lm=False)
        return self._witnesses(None, failing, NO_MODEL)

    def lm_weights(self) -> Witnesses:
        """Return the witnesses of the language models' weights: the recommended model in them, and in earlier ones."""
        if not self._lm.models:
            return self.language_models()
        model, listed = self._lm.models[-1], self._row.decided.lm_quantizations
        place = listed.index(self._lm.quantization)
        fits = self._thinks(model)
        if not place:
            return Witnesses(fits=fits, no_fails="policy.json lists these weights first, so no others were preferred.")
        failing = self._too_short(self._row.choice.knobs, listed[place - 1 : place], [model])
        return self._witnesses(fits, failing)

    def rung(self, field: str) -> Witnesses:
        """Return the witnesses of `offload` or `quantization`: the chosen rung and the last different one."""
        chosen = self._row.choice.knobs
        alone = self.frontier(1, lm=False)
        if alone.fits is None:
            return alone
        before = ladder(self._policy, chosen.variant)[: self._row.choice.rung]
        other = [rung for rung in before if getattr(rung, field) != getattr(chosen, field)]
        if not other:
            said = "No entry of `preference` in policy.json before this one has another value."
            return Witnesses(fits=alone.fits, no_fails=said)
        failing = self._row.certificate(other[-1], 1)
        if failing is not None and self._seconds(failing) < self._row.choice.frontier.longest(1, lm=False):
            return self._witnesses(alone.fits, failing)
        return self._least_model(other[-1])

    def making_room(self, model: str) -> Witnesses:
        """Return the witnesses of the knobs that a model needs: it fits with them, and not with the tier's own."""
        _, probe = self._row.fewest_planned(model)
        return msgspec.structs.replace(self.model(model), fits=CertificateSide(row=self._row, probe=probe), no_fits="")

    def planned(self, model: str) -> Witnesses:
        """Return the witnesses of the songs that a language model plans in one pass."""
        songs, probe = self._row.fewest_planned(model)
        if songs == probe.workload.batch:
            said = "All songs of the largest batch are planned at once."
        else:
            said = "The run itself tries more songs at once and takes what fits; what did not is no probe of its own."
        return Witnesses(fits=CertificateSide(row=self._row, probe=probe), no_fails=said)

    def _least_model(self, rung: Knobs) -> Witnesses:
        """Return the witnesses of a rung on which songs are long enough only without a language model."""
        worthy = LM_MODELS[lm_rank(self._row.decided.least_lm) :]
        weights = self._row.decided.lm_quantizations
        failing = self._too_short(rung, reversed(weights), worthy)
        longest = self._policy.durations_s.values[-1]
        fitting = [
            certificate
            for knobs in self._thinking(self._row.choice.knobs, weights, worthy)
            if (certificate := self._row.certificate(knobs, 1)) and self._seconds(certificate) == longest
        ]
        if failing is not None:
            # The same backend on both sides, and the same model if it fits.
            fitting.sort(key=lambda c: (c.knobs.backend != failing.knobs.backend, c.knobs.lm != failing.knobs.lm))
        return self._witnesses(self._at(fitting[0], longest) if fitting else None, failing)

    def _thinks(self, model: str) -> CertificateSide | None:
        """Return the run of an offered model at the longest song, on the backend with the lower limit."""
        own = self._thinking(self._row.choice.knobs, [self._lm.quantization], [model])
        found = [certificate for knobs in own if (certificate := self._row.certificate(knobs, 1)) is not None]
        return self._at(min(found, key=self._seconds), self._reached) if found else None

    def _too_short(
        self, rung: Knobs, weights: Iterable[Quantization | None], models: Iterable[str]
    ) -> Certificate | None:
        """Return the first certificate of a rung with a language model that does not reach the required length."""
        reached = self._reached if rung == self._row.choice.knobs else self._policy.durations_s.values[-1]
        for knobs in self._thinking(rung, weights, models):
            found = self._row.certificate(knobs, 1)
            if found is not None and found.fails is not None and self._seconds(found) < max(reached, 1):
                return found
        return None

    def _thinking(self, rung: Knobs, weights: Iterable[Quantization | None], models: Iterable[str]) -> Iterator[Knobs]:
        """Yield a rung with each language model, for each of the weights in order."""
        for quantization, model, backend in product(weights, models, self._row.decided.backends_allowed):
            yield thinking(rung, model, quantization, backend)

    def _knobs(self, *, lm: bool) -> list[Knobs]:
        """Return the knobs of a tier's limits: one value without a language model, one for each backend with it."""
        chosen = self._row.choice.knobs
        return [self._lm.knobs(chosen, self._lm.models[-1], b) for b in self._lm.backends] if lm else [chosen]

    def _witnesses(
        self, fits: CertificateSide | None, failing: Certificate | None, no_fits: str = NO_SONG
    ) -> Witnesses:
        fails = None if failing is None or failing.fails is None else self._side(failing.fails)
        return Witnesses(
            fits=fits,
            no_fits="" if fits else no_fits,
            fails=fails,
            no_fails="" if fails else "The record holds no run beyond this limit.",
        )

    def _at(self, certificate: Certificate, seconds: int) -> CertificateSide | None:
        """Return the run of a certificate's batch at a length, or a longer one if the record has only that."""
        limits = Workload(batch=certificate.batch, duration_s=float(seconds), with_lm=certificate.knobs.lm is not None)
        asked = (certificate.knobs, limits, certificate.cap_bytes)
        exact = [probe for probe in self._row.record.probes if probe.question == asked and probe.counts]
        if exact:
            return CertificateSide(row=self._row, probe=exact[0])
        return None if certificate.fits is None else self._side(certificate.fits)

    def _side(self, index: int) -> CertificateSide:
        return CertificateSide(row=self._row, probe=self._row.record.probes[index])

    def _seconds(self, certificate: Certificate) -> int:
        return self._row.record.longest(certificate)


def boundary_witnesses(rows: Sequence[ProvenTier], policy: Policy, name: str, tier: str) -> Witnesses:
    """Return the witnesses of a boundary between sizes: the run at the smallest tier that fits, and at the tier below.

    `tier` is the id of the former, "" if even the largest tier does not fit.
    """
    first = next((place for place, row in enumerate(rows) if row.decided.id == tier), len(rows))
    fits = _of_boundary(rows[first], policy, name).fits if tier else None
    fails = _of_boundary(rows[first - 1], policy, name).fails if first else None
    return Witnesses(
        fits=fits,
        no_fits="" if fits else "It does not fit the largest size that was tried.",
        fails=fails,
        no_fails="" if fails else "It fits the smallest size that was tried.",
    )


def _of_boundary(row: ProvenTier, policy: Policy, name: str) -> Witnesses:
    own = TierWitnesses(row, policy)
    if name.startswith("lm."):
        return own.model(name.removeprefix("lm."))
    probe = row.at_limits(BOUNDARY_CONFIGS[name])
    if probe is None:
        return own.frontier(1, lm=False)
    side = CertificateSide(row=row, probe=probe)
    return Witnesses(fits=side) if probe.counts else Witnesses(fails=side)
