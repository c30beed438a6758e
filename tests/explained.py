"""What an explanation must show, for any field and table: checked only with the table and the records."""

from collections.abc import Callable, Iterator
from typing import Any

from acestep.knobs import LM_MODELS
from acestep.tiers import BATCHES, Tier, VariantTable
from calibrate.explain.document import ExplainedCell, ExplainedProbe
from calibrate.record.measurement import Measurement, keeps_promise
from calibrate.table.policy import Policy, budget_bytes

DECIDED = ("id", "label", "vram_gib", "certified_gib", "backend", "backends_allowed", "compile", "init_lm")


def paths(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every path of a JSON document and its value, objects and what is in them."""
    if path:
        yield path, value
    for key, part in value.items() if isinstance(value, dict) else ():
        yield from paths(part, f"{path}.{key}" if path else key)


class Judge:
    """Asserts that the probes of a cell prove its value, by what the value means."""

    def __init__(self, table: VariantTable, policy: Policy, records: dict[str, Measurement]) -> None:
        self._table = table
        self._policy = policy
        self._records = records
        self._lengths = policy.durations_s.values

    def judge(self, tier: Tier, cell: ExplainedCell) -> None:
        """Check a cell of a row, or a boundary, against its promise."""
        field, _, rest = cell.field.partition(".")
        assert cell.promise
        assert cell.rule
        if field in DECIDED or (field == "evidence" and rest in DECIDED):
            assert (cell.evidence.kind, cell.fits, cell.fails, cell.sources) == ("policy", None, None, ())
            assert cell.policy or field == "evidence"
            return
        assert {source.digest for source in cell.sources} <= set(self._records)
        if field == "evidence":
            return
        for probe in (cell.fits, cell.fails):
            if probe is not None:
                self._in_record(probe)
        assert bool(cell.fits) != bool(cell.no_fits), cell
        assert bool(cell.fails) != bool(cell.no_fails), cell
        assert cell.fits is None or self._counts(cell.fits)
        assert cell.fails is None or not self._counts(cell.fails)
        if field == "boundaries":
            self._boundary(cell, rest)
            return
        cap = budget_bytes(tier.certified_gib, self._policy)
        assert all(probe is None or probe.cap_bytes == cap for probe in (cell.fits, cell.fails))
        assert [budget.cap_bytes for budget in cell.budgets] == [cap]
        _JUDGES[field](self, tier, cell, rest)

    def limit(self, tier: Tier, cell: ExplainedCell, rest: str) -> None:
        """A longest song: at least that fits, and each longer one has in it the run that fails."""
        state, _, batch = rest.partition(".")
        songs, seconds = int(batch or 1), cell.value
        longer = [length for length in self._lengths if length > seconds]
        assert bool(cell.fits) == bool(seconds)
        if cell.fits is not None:
            assert (cell.fits.workload.batch, cell.fits.workload.with_lm) == (songs, state == "with_lm")
            assert cell.fits.workload.duration_s >= seconds
            assert cell.fits.knobs.offload is tier.offload
        assert bool(cell.fails) == bool(longer)
        if cell.fails is not None:
            assert cell.fails.workload.batch <= songs
            assert cell.fails.workload.duration_s <= longer[0] or not tier.own_lm_models

    def batch(self, tier: Tier, cell: ExplainedCell, state: str) -> None:
        """A largest batch: it fits, and the next larger one does not at the same length."""
        seconds = tier.max_duration_s.of(lm=state == "with_lm")
        assert bool(cell.fits) == bool(cell.value)
        if cell.fits is not None:
            assert (cell.fits.workload.batch, cell.fits.workload.with_lm) == (cell.value, state == "with_lm")
            assert cell.fits.workload.duration_s >= seconds
        larger = [size for size in BATCHES if size > cell.value > 0]
        if cell.value:
            assert bool(cell.fails) == bool(larger)
        if cell.fails is not None and cell.fits is not None:
            assert cell.fails.workload.batch == larger[0]
            assert cell.fails.workload.duration_s <= seconds
            assert cell.fails.knobs == cell.fits.knobs

    def models(self, tier: Tier, cell: ExplainedCell, _: str) -> None:
        """The largest model fits, and the next larger does not."""
        if tier.recommended_lm is None:
            assert cell.fits is None
            assert cell.fails is not None
            assert cell.fails.knobs.lm == LM_MODELS[0] or not tier.max_duration_s.without_lm
            return
        assert cell.fits is not None
        assert cell.fits.knobs.lm == tier.recommended_lm
        larger = LM_MODELS[LM_MODELS.index(tier.recommended_lm) + 1 :]
        assert [cell.fails.knobs.lm] == list(larger[:1]) if cell.fails else not larger
        self._no_longer(cell)

    def knob(self, tier: Tier, cell: ExplainedCell, _: str) -> None:
        """The entries of the policy before this value do not carry the run that fits."""
        if cell.fits is None:
            assert not tier.max_duration_s.without_lm or not tier.own_lm_models
            return
        if cell.field != "lm_quantization" or tier.own_lm_models:
            assert getattr(cell.fits.knobs, cell.field) == getattr(tier, cell.field)
        rung = next(
            place
            for place, rung in enumerate(self._policy.preference)
            if (rung.offload, rung.quantization) == (tier.offload, tier.quantization)
        )
        decided = next(entry for entry in self._policy.tiers if entry.id == tier.id)
        before: list[Any] = [getattr(r, cell.field, None) for r in self._policy.preference[:rung]]
        if cell.field == "lm_quantization":
            before = list(decided.lm_quantizations[: decided.lm_quantizations.index(tier.lm_quantization)])
        assert bool(cell.fails) == any(value != getattr(tier, cell.field) for value in before)
        if cell.fails is not None:
            assert getattr(cell.fails.knobs, cell.field) in before
            assert getattr(cell.fails.knobs, cell.field) != getattr(tier, cell.field)
            self._no_longer(cell)

    def planned(self, tier: Tier, cell: ExplainedCell, model: str) -> None:
        """The run at the tier's limits planned so many songs at once."""
        if not model:
            self.models(tier, cell, "")
            return
        assert cell.fits is not None
        assert (cell.fits.knobs.lm, cell.fits.workload.batch) == (model, tier.thinking_with(model).max_batch.with_lm)
        assert [s.songs_per_pass for s in cell.fits.stages if s.name == "think"] == [cell.value]

    def room(self, tier: Tier, cell: ExplainedCell, model: str) -> None:
        """The model fits with the knobs it needs, at its own limits, and does not with the tier's."""
        if not model:
            return
        needs = tier.lm_needs[model]
        assert cell.fits is not None
        knobs = cell.fits.knobs
        assert (knobs.lm, knobs.offload, knobs.quantization) == (model, needs.offload, needs.quantization)
        assert (knobs.lm_quantization, knobs.backend in needs.backends) == (needs.lm_quantization, True)
        assert cell.fits.workload.duration_s == needs.with_lm["1"]
        assert cell.fails is not None
        assert (cell.fails.knobs.lm, cell.fails.knobs.offload) == (model, tier.offload)

    def _boundary(self, cell: ExplainedCell, name: str) -> None:
        found = self._table.boundaries.named[name]
        for probe, size in ((cell.fits, found.fits_gib), (cell.fails, found.fails_gib)):
            assert bool(probe) == bool(size)
            assert probe is None or probe.cap_bytes == budget_bytes(size, self._policy)
        assert [budget.nameplate_gib for budget in cell.budgets] == [s for s in (found.fits_gib, found.fails_gib) if s]
        if cell.fits is not None and name.startswith("lm."):
            assert cell.fits.knobs.lm == name.removeprefix("lm.")
        elif cell.fits is not None:
            assert cell.fits.knobs.quantization is None
            assert name == "without_int8" or cell.fits.knobs.offload == "none"

    def _no_longer(self, cell: ExplainedCell) -> None:
        """The failing run contains the fitting one."""
        if cell.fits is not None and cell.fails is not None:
            assert cell.fails.workload.batch == cell.fits.workload.batch
            assert cell.fails.workload.duration_s <= cell.fits.workload.duration_s

    def _in_record(self, probe: ExplainedProbe) -> None:
        recorded = self._records[probe.record].probes[probe.index]
        assert recorded.question == (probe.knobs, probe.workload, probe.cap_bytes)
        assert (recorded.verdict, recorded.stages) == (probe.verdict, probe.stages)

    def _counts(self, probe: ExplainedProbe) -> bool:
        return keeps_promise(probe, probe.workload.batch)


_JUDGES: dict[str, Callable[[Judge, Tier, ExplainedCell, str], None]] = {
    "max_duration_s": Judge.limit,
    "frontier": Judge.limit,
    "max_batch": Judge.batch,
    "lm_models": Judge.models,
    "recommended_lm": Judge.models,
    "lm_quantization": Judge.knob,
    "offload": Judge.knob,
    "quantization": Judge.knob,
    "lm_songs_per_pass": Judge.planned,
    "lm_needs": Judge.room,
}
