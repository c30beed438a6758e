"""The guard makes as many songs at once as fit, never none, and says nothing where nothing is known."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.dit.blocks import row_pieces
from acestep.knobs import Knobs, Offload, Quantization, Variant
from acestep.limits.capabilities import matrix_workspace
from acestep.limits.guard import COEFFICIENTS, Demand, growth, predict, songs_at_once
from acestep.limits.workspace import LARGE_SEGMENT, OWN_SEGMENT, rows_at_once
from acestep.units import MIB, ceil_div
from calibrate.probes.simulated.memory_model import SPARE_BYTES, SPARE_SHARE, Swept, fit
from calibrate.workload import Workload

UNEVEN = 6 * MIB
"""By how much gaps make requests differ that are otherwise alike."""

ROUNDING = 20 * MIB
"""Tensors below 10 MiB share segments of 20 MiB, larger ones have their own, so that a little more may take less."""


def _true(knobs: Knobs, demand: Demand) -> int:
    """A card whose memory is what the stage takes, its weights, and gaps."""
    weights = 1500 if knobs.quantization else 3000
    rest = {Offload.NONE: 2 * weights, Offload.CPU: weights}.get(knobs.offload, 0) * MIB
    held = rest or (400 if knobs.offload in (Offload.STREAM, Offload.STREAM_ENCODERS) else weights) * MIB
    return held + 40 * MIB + growth(knobs, demand) - hash(demand) % UNEVEN


def _denoise(quantization: Quantization | None, demand: Demand) -> Swept:
    rest = {Offload.NONE: 6000, Offload.CPU: 3000}
    return Swept(
        demand=demand,
        caps={offload: _true(Knobs(offload=offload, quantization=quantization), demand) for offload in Offload},
        resting={offload: rest.get(offload, 0) * MIB for offload in Offload},
    )


def _caps(knobs: Knobs, workload: Workload) -> dict[str, int]:
    heard = round(500 + workload.duration_s // 30) * MIB
    return {"encode_audio": heard, "encode": (1100 + workload.lyric_tokens // 20) * MIB, "decode": 400 * MIB}


@pytest.fixture(scope="module")
def model() -> dict[str, float]:
    return fit(Knobs().variant, _denoise, _caps)


offloads = st.sampled_from(list(Offload))
formats = st.sampled_from([None, Quantization.INT8])
demands = st.builds(
    Demand,
    songs=st.integers(1, 8),
    frames=st.integers(250, 15_000),
    lyric_tokens=st.integers(50, 2_048),
    text_tokens=st.integers(20, 256),
    weak_cover=st.booleans(),
)


@given(offload=offloads, quantization=formats, demand=demands)
def test_a_request_is_predicted_from_above_and_closely(
    model: dict[str, float], offload: Offload, quantization: Quantization | None, demand: Demand
) -> None:
    knobs = Knobs(offload=offload, quantization=quantization)
    need = _true(knobs, demand)
    predicted = predict(model, knobs, demand)["denoise"]
    assert need <= predicted <= need + UNEVEN + max(SPARE_BYTES, SPARE_SHARE * need)


@given(demand=demands, variant=st.sampled_from(list(Variant)), quantization=formats)
def test_more_songs_another_condition_or_keys_for_all_heads_take_less_only_by_rounding(
    demand: Demand, variant: Variant, quantization: Quantization | None
) -> None:
    knobs = Knobs(variant=variant, quantization=quantization)
    taken = growth(knobs, demand)
    changes: list[dict[str, Any]] = [{"songs": demand.songs + 1}, {"weak_cover": True}, {"grouped_attention": False}]
    for change in changes:
        assert growth(knobs, msgspec.structs.replace(demand, **change)) > taken - ROUNDING, change


@given(offload=offloads, demand=demands, free=st.integers(0, 12_000))
def test_every_song_comes_in_even_passes_and_one_pass_where_that_fits(
    model: dict[str, float], offload: Offload, demand: Demand, free: int
) -> None:
    knobs = Knobs(offload=offload)
    at_once = songs_at_once(model, knobs, demand, free * MIB)
    assert 1 <= at_once <= demand.songs
    passes = ceil_div(demand.songs, at_once)
    assert passes * at_once - demand.songs < passes, "no pass is more than one song short of the others"
    room = free * MIB + model[f"none.{offload}.rest"]

    def need(songs: int) -> int:
        alone = msgspec.structs.replace(demand, songs=songs)
        return predict(model, knobs, alone)["denoise"]

    assert at_once == 1 or need(at_once) <= room
    if at_once < demand.songs:
        fewer_passes = ceil_div(demand.songs, passes - 1)
        assert need(fewer_passes) > room


@given(demand=demands)
def test_without_coefficients_there_is_no_prediction(demand: Demand) -> None:
    assert predict({}, Knobs(), demand) == {}
    assert songs_at_once({}, Knobs(), demand, 0) == demand.songs


@given(missing=st.sampled_from(COEFFICIENTS))
def test_a_table_without_a_coefficient_gives_no_prediction(model: dict[str, float], missing: str) -> None:
    knobs, demand = Knobs(), Demand(songs=8, frames=15_000, lyric_tokens=2_048, text_tokens=256)
    known = {name: value for name, value in model.items() if name != f"none.none.{missing}"}
    assert len(known) == len(model) - 1
    assert predict(known, knobs, demand) == {}
    assert songs_at_once(known, knobs, demand, 0) == 8
    assert songs_at_once(model, knobs, demand, 0) == 1


def test_a_format_that_was_not_swept_has_no_prediction(model: dict[str, float]) -> None:
    demand = Demand(songs=8, frames=15_000, lyric_tokens=2_048, text_tokens=256)
    assert songs_at_once(model, Knobs(quantization=Quantization.FP8), demand, 0) == 8


@given(offload=offloads, quantization=formats, demand=demands)
def test_numbers_of_twice_the_size_take_about_twice_as_much(
    model: dict[str, float], offload: Offload, quantization: Quantization | None, demand: Demand
) -> None:
    knobs = Knobs(offload=offload, quantization=quantization)
    single = predict(model, knobs, demand)
    double = predict(model, knobs, msgspec.structs.replace(demand, itemsize=4))
    for stage, needed in single.items():
        # Sums in float32 and the matrix library's workspace are as large as before, and segments are rounded up.
        assert needed < double[stage] <= 2 * needed + 3 * LARGE_SEGMENT, stage
        assert double[stage] >= 1.6 * needed, stage


@given(songs=st.integers(1, 64), tokens=st.integers(1, 7_500))
def test_the_guard_knows_how_rows_are_cut(songs: int, tokens: int) -> None:
    cut = ((group.stop - group.start) * (rows.stop - rows.start) for group, rows in row_pieces(songs, tokens))
    assert rows_at_once(songs, tokens) == max(cut)


@given(offload=offloads, demand=demands, capability=st.sampled_from([(9, 0), (10, 0), (12, 0)]))
def test_every_stage_needs_the_larger_workspace_of_a_newer_card(
    model: dict[str, float], offload: Offload, demand: Demand, capability: tuple[int, int]
) -> None:
    newer = msgspec.structs.replace(demand, matrix_workspace=matrix_workspace(capability))
    before, after = (predict(model, Knobs(offload=offload), asked) for asked in (demand, newer))
    more = newer.matrix_workspace - demand.matrix_workspace
    # The smaller one may lie in a segment whose rest others use.
    assert all(more - LARGE_SEGMENT <= after[stage] - before[stage] <= more + LARGE_SEGMENT for stage in before)
    assert all(after[stage] - before[stage] == more for stage in ("encode", "decode"))


@given(offload=offloads, demand=demands)
def test_audio_and_a_weaker_cover_are_never_predicted_to_need_less(
    model: dict[str, float], offload: Offload, demand: Demand
) -> None:
    knobs = Knobs(offload=offload)
    plain = msgspec.structs.replace(demand, weak_cover=False)
    weak = msgspec.structs.replace(demand, weak_cover=True, with_audio=True)
    before, after = predict(model, knobs, plain), predict(model, knobs, weak)
    assert "encode_audio" not in before
    assert after["encode_audio"] >= 500 * MIB
    assert all(after[stage] >= need for stage, need in before.items())
    own = msgspec.structs.replace(demand, contexts=demand.songs + 1)
    # Contexts that are large enough for a segment of their own may take less than a share of 20 MiB.
    spared = LARGE_SEGMENT - OWN_SEGMENT
    assert predict(model, knobs, own)["denoise"] >= predict(model, knobs, demand)["denoise"] - spared
