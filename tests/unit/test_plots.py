"""Plots show what records hold, can be read on any page, and are the same bytes for the same data."""

import re
from collections.abc import Mapping
from xml.etree import ElementTree as ET

import msgspec
import pytest

from acestep.knobs import Knobs, Variant
from acestep.tiers import BATCHES, load_tiers
from acestep.units import MIB
from calibrate.record.measurement import Measurement
from calibrate.report import plots as plots_module
from calibrate.report.plot_data import Curve, lines, pairs, panels, stage_bars
from calibrate.report.plots import INK, STAGE_COLOURS, WAY_COLOURS, plots, same_drawing
from calibrate.table.policy import budget_bytes
from tests.guides import POLICY, on_a_card, simulated, sources, thinking, with_lm

PLAIN = sources(simulated())
TIERS = PLAIN.table.variants[Variant.TURBO].tiers
RECORDS = {simulated().digest: simulated()}

PAGES = {"white": (255, 255, 255), "dark": (13, 17, 23)}
"""What pages are usually behind a plot."""


@pytest.fixture(scope="module")
def drawn() -> Mapping[str, str]:
    return plots(PLAIN.table, POLICY, PLAIN.records)


def luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def rgb(colour: str) -> tuple[int, int, int]:
    return tuple(bytes.fromhex(colour[1:]))  # type: ignore[return-value]


@pytest.mark.parametrize("page", PAGES)
def test_every_colour_stands_out_from_light_and_dark_pages(page: str) -> None:
    for colour in (*WAY_COLOURS, *STAGE_COLOURS.values()):
        assert contrast(rgb(colour), PAGES[page]) >= 3, colour
    assert contrast(rgb(INK), PAGES[page]) >= 4


def test_every_way_and_every_stage_has_a_colour_of_its_own() -> None:
    ways = max(len({(tier.offload, tier.quantization) for tier in t.tiers}) for t in load_tiers().variants.values())
    assert len(set(WAY_COLOURS)) == len(WAY_COLOURS) >= ways
    assert len(set(STAGE_COLOURS.values())) == len(STAGE_COLOURS)


def test_curves_that_lie_on_each_other_are_one_line_with_all_their_batches() -> None:
    curves = [
        Curve(batch=batch, points=((60, 100), (600, end))) for batch, end in ((1, 100), (2, 104), (4, 106), (8, 200))
    ]
    found = lines(curves, 5)
    assert [line.batches for line in found] == [(1, 2), (4,), (8,)]
    assert [line.points[-1][1] for line in found] == [104, 106, 200]
    assert [line.batches for line in lines(curves, 0)] == [(1,), (2,), (4,), (8,)]
    assert lines((), 5) == ()


def test_the_same_data_are_the_same_bytes_without_a_date(drawn: Mapping[str, str]) -> None:
    assert plots(PLAIN.table, POLICY, PLAIN.records) == drawn
    for text in drawn.values():
        assert "dc:date" not in text


def test_a_plot_is_one_file_with_readable_text_and_no_background(drawn: Mapping[str, str]) -> None:
    for name, text in drawn.items():
        root = ET.fromstring(text)  # noqa: S314 made here
        shown = " ".join("".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text"))
        assert "GiB" in shown, name
        assert not re.search(r"(?:href|src)=\"(?!#)", text)
        assert "opacity: 0" in text or "fill: none" in text
        assert len(text) < 200_000


def test_tier_labels_and_stages_are_on_their_plots(drawn: Mapping[str, str]) -> None:
    for tier in TIERS:
        assert tier.label in drawn["stages-turbo.svg"]
    for stage in ("encode", "denoise", "decode"):
        assert f">{stage}<" in drawn["stages-turbo.svg"]
    for tier in TIERS:
        labels = re.findall(
            rf">{re.escape(tier.offload)}, {tier.quantization or 'exact'}: ([\d, ]+) songs<",
            drawn["vram-turbo.svg"],
            re.IGNORECASE,
        )
        assert sorted(int(batch) for label in labels for batch in label.split(", ")) == list(BATCHES)


def test_other_data_are_another_drawing_and_another_release_is_not(drawn: Mapping[str, str]) -> None:
    text = drawn["vram-turbo.svg"]
    another_release = text.replace("matplotlib ", "matplotlib 9", 1).replace("font:", "font :")
    assert another_release != text
    assert same_drawing(another_release, text)
    digest = plots_module._METADATA["data"].search(text)
    assert digest is not None
    assert not same_drawing(another_release.replace(digest[1], "sha256:" + "0" * 64), text)
    # With the same release every byte has to be the same, or a plot could be edited by hand.
    assert not same_drawing(text.replace("font:", "font :"), text)
    assert not same_drawing("<svg/>", "<svg />")


def test_points_are_probes_of_the_record_and_nothing_else() -> None:
    probes = {
        (p.workload.batch, (int(p.workload.duration_s), p.cap_bytes), p.knobs): p.counts for p in simulated().probes
    }
    found = panels(Variant.TURBO, TIERS, POLICY, RECORDS)
    assert [(panel.offload, panel.quantization) for panel in found] == list(
        dict.fromkeys((tier.offload, tier.quantization) for tier in TIERS)
    )
    for panel in found:
        knobs = Knobs(offload=panel.offload, quantization=panel.quantization)
        assert all(probes[batch, point, knobs] for batch, point in panel.fits)
        assert not any(probes[batch, point, knobs] for batch, point in panel.fails)
        assert {line.n_bytes for line in panel.budgets} == {budget_bytes(t.certified_gib, POLICY) for t in TIERS}


def test_curves_rise_with_batch_and_length_and_need_a_memory_model() -> None:
    for panel in panels(Variant.TURBO, TIERS, POLICY, RECORDS):
        assert [curve.batch for curve in panel.curves] == list(BATCHES)
        for curve in panel.curves:
            assert [seconds for seconds, _ in curve.points] == list(POLICY.durations_s.values)
        ends = [curve.points[-1][1] for curve in panel.curves]
        assert ends == sorted(ends)
    bare = msgspec.structs.replace(simulated(), memory_model=())
    for panel in panels(Variant.TURBO, TIERS, POLICY, {simulated().digest: bare}):
        assert panel.curves == ()
        assert panel.budgets


def test_bars_are_the_stages_of_each_tier_s_own_largest_run() -> None:
    bars = stage_bars(Variant.TURBO, TIERS, POLICY, RECORDS)
    assert [bar.tier for bar in bars] == [tier.label for tier in TIERS for _ in range(3)]
    peaks = {s.needed_bytes for p in simulated().probes if p.counts for s in p.stages}
    assert {sum(bar.parts.values()) for bar in bars} <= peaks
    assert all(bar.parts["weights"] + bar.parts["activations"] <= bar.budget for bar in bars)


def test_a_tier_with_a_language_model_that_no_probe_ran_shows_the_run_without() -> None:
    bare = stage_bars(Variant.TURBO, TIERS, POLICY, RECORDS)
    offered = tuple(with_lm(tier, "4B") for tier in TIERS)
    unprobed = msgspec.structs.replace(
        simulated(), certificates=tuple(c for c in simulated().certificates if c.knobs.lm is None)
    )
    assert stage_bars(Variant.TURBO, offered, POLICY, {simulated().digest: unprobed}) == bare


def test_agreement_is_shown_only_where_a_real_card_answered_the_same_question(drawn: Mapping[str, str]) -> None:
    assert "agreement-turbo.svg" not in drawn
    assert pairs(Variant.TURBO, [simulated()]) == pairs(Variant.TURBO, [on_a_card()]) == ()
    both: list[Measurement] = [simulated(), on_a_card()]
    found = pairs(Variant.TURBO, both)
    assert found
    assert all(0 < pair.measured - pair.simulated <= 40 * MIB for pair in found)
    assert pairs(Variant.BASE, both) == ()


def test_tables_of_several_variants_and_measured_cards_have_a_plot_each() -> None:
    source = thinking(sources(simulated(), on_a_card()))
    found = plots(source.table, POLICY, source.records)
    assert "agreement-turbo.svg" in found
    for text in found.values():
        ET.fromstring(text)  # noqa: S314 made here


def test_a_table_of_other_records_draws_nothing_it_cannot_show() -> None:
    assert plots(PLAIN.table, POLICY, []) == {}
