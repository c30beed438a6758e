"""`tier-test` probes what the plan says and believes nothing that the table has stored."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.errors import InvalidInputError, UsageError
from acestep.hardware.card import simulated_card
from acestep.knobs import Backend, Variant
from acestep.limits import plan as planning
from acestep.limits.plan import Plan, resolve
from acestep.request import MAX_LYRIC_TOKENS, DecodePath, Request
from acestep.stage import Stage
from acestep.tiers import BATCHES, Frontier, LmStates, SizeBoundary, TierTable, load_tiers
from calibrate.files import pretty_json
from calibrate.probes.base import Prober
from calibrate.profiling.document import TierTest
from calibrate.profiling.example import LONGEST_PROMPT, load_example, prompt_of
from calibrate.profiling.overlimit import missing_warnings
from calibrate.profiling.tier_report import print_tier_test
from calibrate.profiling.tier_test import Options, most_trials, tier_test, trials
from calibrate.table.knobs import Config
from calibrate.table.merge import build_table
from calibrate.table.policy import budget_bytes, load_policy
from calibrate.verdict import Verdict
from tests.fakes import AnalyticProber, ScriptedProber, measured, result

POLICY = load_policy()
TABLE = build_table([measured()], POLICY)
WITH_LMS = load_tiers(Path(__file__).parents[1] / "fixtures" / "tiers.json")
SIZES = POLICY.certified_sizes_gib
ROW_KEYS = {
    *("tier", "vram_gib", "variant", "config", "configs", "lm", "backend", "attention", "compiled", "batch"),
    *("duration_s", "verdict", "peak_allocated_bytes", "peak_reserved_bytes", "seconds", "decode_path", "warnings"),
}


def run(
    prober: Prober | None = None,
    *,
    table: TierTable = TABLE,
    sizes: Sequence[float] = SIZES,
    with_lm: bool = False,
    boundary: bool = True,
    batch_boundary: bool = False,
) -> TierTest:
    options = Options(with_lm=with_lm, boundary=boundary, batch_boundary=batch_boundary)
    tried = trials(table, POLICY, sizes, "simulated", options)
    return tier_test(tried, prober or AnalyticProber(), options, lambda _: None)


def changed(table: TierTable, **fields: Any) -> TierTable:
    """The table with fields of every tier replaced."""
    turbo = table.variants[Variant.TURBO]
    tiers = tuple(msgspec.structs.replace(tier, **fields) for tier in turbo.tiers)
    return msgspec.structs.replace(table, variants={Variant.TURBO: msgspec.structs.replace(turbo, tiers=tiers)})


def test_what_the_table_was_made_from_is_found_again() -> None:
    found = run(batch_boundary=True)
    assert not found.failed
    stored = TABLE.variants[Variant.TURBO].boundaries
    assert found.boundaries is not None
    for name in ("without_int8", "without_offload"):
        probed, written = getattr(found.boundaries, name), getattr(stored, name)
        assert (probed.fits_gib, probed.fails_gib, probed.tier) == (written.fits_gib, written.fails_gib, written.tier)
    assert [entry.without_lm for entry in found.batch_boundaries] == [
        tier.max_batch.without_lm for tier in TABLE.variants[Variant.TURBO].tiers
    ]


def test_nothing_of_a_result_is_read_back_from_the_table() -> None:
    turbo = TABLE.variants[Variant.TURBO]
    lie = SizeBoundary(fits_gib=4, fails_gib=0, tier="tier1")
    boundaries = msgspec.structs.replace(turbo.boundaries, without_int8=lie, without_offload=lie)
    altered = msgspec.structs.replace(turbo, boundaries=boundaries, memory_model={"denoise": 1.0})
    lying = changed(msgspec.structs.replace(TABLE, variants={Variant.TURBO: altered}), evidence={})
    assert pretty_json(run(table=lying, batch_boundary=True)) == pretty_json(run(batch_boundary=True))


def test_every_tier_runs_at_its_own_limits_under_the_budget_of_its_size_with_the_longest_prompt() -> None:
    prober = AnalyticProber()
    found = run(prober)
    rows = iter(found.results)
    for knobs, workload, cap_bytes in prober.asked:
        row = next(rows)
        plan = resolve(simulated_card(row.vram_gib), TABLE)
        assert cap_bytes == budget_bytes(row.vram_gib, POLICY)
        assert (workload.batch, workload.duration_s) == (plan.max_batch.without_lm, plan.max_duration_s.without_lm)
        assert (workload.text_tokens, workload.lyric_tokens) == (256, 2048)
        if Config.DEFAULT in row.configs:
            assert (knobs.offload, knobs.quantization) == (plan.offload, plan.quantization)


def test_identical_configs_run_once_and_the_row_carries_every_name() -> None:
    prober = AnalyticProber()
    rows = run(prober).results
    assert len(prober.asked) == len(rows)
    for size in SIZES:
        names = [config for row in rows if row.vram_gib == size for config in row.configs]
        assert names == list(Config)
    unlimited = [row for row in rows if row.tier == "unlimited"]
    assert [row.configs for row in unlimited] == [tuple(Config)]


def test_without_the_boundary_flag_each_tier_runs_once() -> None:
    found = run(boundary=False)
    assert [row.configs for row in found.results] == [(Config.DEFAULT,)] * len(SIZES)
    assert found.boundaries is None
    assert found.batch_boundaries == ()


def test_the_document_has_every_key_of_the_contract() -> None:
    document = json.loads(pretty_json(run(batch_boundary=True)))
    assert {"schema_version", "device", "results", "boundaries", "batch_boundaries"} <= set(document)
    assert all(set(row) >= ROW_KEYS for row in document["results"])
    assert set(document["boundaries"]) == {"without_int8", "without_offload", "lm"}
    assert set(document["boundaries"]["without_int8"]) == {"fits_gib", "fails_gib", "tier"}
    assert set(document["batch_boundaries"][0]) == {"tier", "vram_gib", "with_lm", "without_lm"}


@pytest.mark.parametrize("table", [TABLE, WITH_LMS])
def test_language_models_are_tried_only_where_they_are_asked_for(table: TierTable) -> None:
    found = run(table=table, batch_boundary=True)
    assert {row.lm for row in found.results} == {None}
    assert {entry.with_lm for entry in found.batch_boundaries} == {None}
    assert found.boundaries is not None
    assert found.boundaries.lm == {}


def test_with_a_language_model_every_tier_runs_its_recommended_one_at_the_limits_it_has_with_it() -> None:
    prober = AnalyticProber()
    found = run(prober, with_lm=True, boundary=False)
    assert not found.failed
    thinking = [row for row in found.results if row.lm is not None]
    tiers = {tier.id: tier for tier in TABLE.variants[Variant.TURBO].tiers}
    assert [row.tier for row in thinking] == [tier.id for tier in tiers.values() if tier.lm_models]
    for row in thinking:
        tier = tiers[row.tier]
        assert (row.lm, row.backend) == (tier.recommended_lm, tier.backend)
        assert (row.batch, row.duration_s) == (tier.max_batch.with_lm, tier.max_duration_s.with_lm)
        assert row.stages[0].name == "think"
    for knobs, workload, _ in prober.asked:
        assert workload.with_lm == (knobs.lm is not None)


def test_the_boundaries_and_batches_of_language_models_are_those_of_the_table_and_are_probed() -> None:
    found = run(with_lm=True, batch_boundary=True)
    turbo = TABLE.variants[Variant.TURBO]
    assert found.boundaries is not None
    for model, written in turbo.boundaries.lm.items():
        probed = found.boundaries.lm[model]
        assert (probed.fits_gib, probed.fails_gib, probed.tier) == (written.fits_gib, written.fails_gib, written.tier)
    assert [entry.with_lm for entry in found.batch_boundaries] == [tier.max_batch.with_lm for tier in turbo.tiers]


def test_sizes_are_read_as_cards_report_them_and_swept_once_smallest_first() -> None:
    found = run(sizes=(23.5, 7.6, 8, 15.56), boundary=False)
    assert [(row.vram_gib, row.tier) for row in found.results] == [(8, "tier4"), (16, "tier6a"), (24, "unlimited")]
    assert '"vram_gib": 8,' in pretty_json(found)


def test_a_card_below_its_tiers_certified_size_is_tried_at_the_limits_it_is_given() -> None:
    (row,) = run(sizes=(6.4,), boundary=False).results
    assert row.tier == "tier3"
    assert row.duration_s == TABLE.variants[Variant.TURBO].tiers[1].max_duration_s.without_lm
    assert row.warnings


def test_a_default_that_does_not_fit_fails_its_tier_and_no_other() -> None:
    class TooSmall(AnalyticProber):
        def probe(self, *asked: Any) -> Any:
            return (
                super().probe(*asked)
                if asked[2] != budget_bytes(12, POLICY)
                else result(Verdict.OOM, asked[1], asked[2], peak=1)
            )

    found = run(TooSmall())
    assert len(found.failed) == 1
    assert found.failed[0].startswith("tier5 at 12 GiB")


@pytest.mark.parametrize(
    ("songs_per_pass", "decode_path"), [(1, DecodePath.GPU), (0, DecodePath.CPU)], ids=["in passes", "on the CPU"]
)
def test_a_promise_kept_only_in_passes_or_on_the_cpu_is_broken(songs_per_pass: int, decode_path: DecodePath) -> None:
    tried = trials(TABLE, POLICY, (24,), "simulated", Options())
    answer = result(
        Verdict.FITS, tried[0].alone.workload, 1, peak=1, songs_per_pass=songs_per_pass, decode_path=decode_path
    )
    assert tier_test(tried, ScriptedProber([answer]), Options(), lambda _: None).failed


def test_a_tier_that_promises_nothing_fails_without_a_probe() -> None:
    nothing = {str(batch): 0 for batch in BATCHES}
    none = LmStates(with_lm=0, without_lm=0)
    frontier = Frontier(with_lm=nothing, without_lm=nothing)
    no_lm: dict[str, Any] = {"lm_models": (), "recommended_lm": None, "lm_songs_per_pass": {}, "lm_needs": {}}
    table = changed(TABLE, max_duration_s=none, max_batch=none, frontier=frontier, **no_lm)
    found = run(ScriptedProber([]), table=table)
    assert len(found.failed) == len(SIZES)
    assert found.results == ()


def test_probes_are_announced_exactly() -> None:
    every = Options(with_lm=True, boundary=True, batch_boundary=True)
    for options in (Options(), Options(boundary=True), Options(with_lm=True, boundary=True), every):
        prober = AnalyticProber()
        lines: list[str] = []
        tried = trials(TABLE, POLICY, SIZES, "simulated", options)
        tier_test(tried, prober, options, lines.append)
        assert len(prober.asked) == len(lines) == len(set(prober.asked))
        assert len(lines) <= most_trials(tried, options)
        if not options.batch_boundary:
            assert len(lines) == most_trials(tried, options)


def test_batches_are_tried_up_to_the_first_that_does_not_fit() -> None:
    tried = trials(TABLE, POLICY, (4,), "simulated", Options(batch_boundary=True))
    assert tried[0].alone.workload.batch == 4
    script = [Verdict.FITS, Verdict.FITS, Verdict.FITS, Verdict.OOM]  # 4 (the tier's own row, not asked again), 1, 2, 8
    found = tier_test(tried, ScriptedProber(script), Options(batch_boundary=True), lambda _: None)
    assert found.batch_boundaries[0].without_lm == 4


def test_batches_stand_beside_what_the_table_promises(capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(batch_boundary=True)
    tried = trials(TABLE, POLICY, (4,), "simulated", options)
    assert tried[0].plan.max_batch.without_lm == 4
    # The tier's own row, and then batches one after another.
    for script, said in (
        ((Verdict.FITS, Verdict.OOM), "0, LESS than the 4 promised"),
        ((Verdict.FITS, Verdict.FITS, Verdict.FITS, Verdict.OOM), "4, as promised"),
        ((Verdict.FITS, Verdict.FITS, Verdict.FITS, Verdict.FITS), "8, more than the 4 promised"),
    ):
        print_tier_test(tier_test(tried, ScriptedProber(script), options, lambda _: None), tried, options)
        assert said in capsys.readouterr().out


def test_stages_are_columns_in_the_order_in_which_they_run(capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(with_lm=True)
    tried = trials(TABLE, POLICY, (24,), "simulated", options)
    print_tier_test(tier_test(tried, AnalyticProber(), options, lambda _: None), tried, options)
    heading = capsys.readouterr().out.splitlines()[1].split()
    assert [column for column in heading if column in list(Stage)] == [stage for stage in Stage if stage in heading]
    assert "think" in heading


def test_a_real_card_compiles_where_the_tier_says_so_unless_told_to_skip_it() -> None:
    quantized = {tier.id for tier in TABLE.variants[Variant.TURBO].tiers if tier.quantization is not None}
    assert quantized
    for skip in (False, True):
        for trial in trials(TABLE, POLICY, SIZES, "cuda", Options(skip_compile=skip)):
            assert trial.alone.knobs.compile is (not skip or trial.plan.tier in quantized)
    assert not any(trial.alone.knobs.compile for trial in trials(TABLE, POLICY, SIZES, "simulated", Options()))


def silent_clamp(request: Request, plan: Plan, *, lm: bool) -> tuple[Request, tuple[str, ...]]:
    clamped, _ = CLAMP(request, plan, lm=lm)
    return clamped, ()


def idle_clamp(request: Request, plan: Plan, *, lm: bool) -> tuple[Request, tuple[str, ...]]:
    return request, ("All is well.",)


def silent_resolve(*asked: Any, **more: Any) -> Plan:
    return msgspec.structs.replace(RESOLVE(*asked, **more), warnings=())


CLAMP, RESOLVE = planning.clamp, planning.resolve


@pytest.mark.parametrize("size", SIZES)
def test_the_shipped_plan_warns_of_every_request_above_its_limits(size: int) -> None:
    card = simulated_card(size)
    assert missing_warnings(card, TABLE, resolve(card, TABLE)) == ()


@pytest.mark.parametrize("broken", [silent_clamp, idle_clamp])
def test_a_limit_exceeded_without_warning_fails_the_tier_and_keeps_its_verdict(
    broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "clamp", broken)
    found = run(sizes=(24,))
    assert [row.verdict for row in found.results] == [Verdict.FITS]
    assert found.failed
    assert any("batch of 9" in warning for warning in found.results[0].warnings)


def test_vllm_let_through_where_it_is_not_allowed_fails_the_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "resolve", silent_resolve)
    card = simulated_card(4)
    plan = RESOLVE(card, TABLE)
    assert Backend.VLLM not in plan.backends_allowed
    assert any("vllm" in sentence for sentence in missing_warnings(card, TABLE, plan))


def example(folder: Path, document: Any) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "song.json").write_text(text, encoding="utf-8")
    return "song"


def test_an_example_gives_the_prompt_at_most_as_long_as_its_bytes(tmp_path: Path) -> None:
    name = example(tmp_path, {"caption": "느린 피아노", "lyrics": "비가 오네\n" * 20, "language": "ko"})
    prompt = prompt_of(load_example(name, tmp_path))
    assert len(("비가 오네\n" * 20).encode()) < prompt.lyric_tokens < MAX_LYRIC_TOKENS
    assert prompt.text_tokens <= LONGEST_PROMPT.text_tokens
    endless = prompt_of(Request(caption="x" * 9999, lyrics="y" * 9999))
    assert endless == LONGEST_PROMPT


def test_an_unknown_example_is_a_usage_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    example(tmp_path, {"caption": "piano"})
    for name in ("nothing", "../song", ""):
        with pytest.raises(UsageError, match="song"):
            load_example(name, tmp_path)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ('{"caption": "pia', "cut short"),
        ({"caption": 3}, "caption"),
        ({"caption": "piano", "tempo": 90}, "tempo"),
        ({"caption": "piano", "duration_s": 9000}, "duration_s"),
        ({"lyrics": "la"}, "caption"),
        ({"caption": "piano \ud800"}, "$.caption"),
    ],
)
def test_a_malformed_example_is_refused_with_file_and_field(document: Any, field: str, tmp_path: Path) -> None:
    name = example(tmp_path, document)
    with pytest.raises(InvalidInputError) as caught:
        load_example(name, tmp_path)
    assert "song.json" in str(caught.value)
    assert field in str(caught.value)
