"""The plots of the guide as SVG, readable on light and on dark pages; the same data gives the same bytes."""

import io
import re
from collections.abc import Mapping, Sequence, Set
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from acestep.request import MAX_DURATION_S
from acestep.stage import Stage
from acestep.tiers import TierTable
from acestep.units import GIB
from calibrate.files import digest
from calibrate.record.measurement import Measurement
from calibrate.report.plot_data import Panel, StageBar, StagePair, lines, pairs, panels, stage_bars
from calibrate.table.policy import Policy

INK = "#7b7f86"
"""Text and lines: a grey with enough contrast to both white and black (a test computes it)."""

WAY_COLOURS = ("#2f86d6", "#1f9a6d", "#c9741a", "#b85fd0", "#d9534f", "#8a8d93")
"""A colour for each way to keep the weights, in the order of the tiers."""

PART_SHADES = {"weights": 1.0, "activations": 0.5, "allowance": 0.25}
"""How dark the parts of a bar are, from below."""

STAGE_COLOURS: dict[str, str] = {
    Stage.THINK: "#b85fd0",
    Stage.ENCODE_AUDIO: "#d9534f",
    Stage.ENCODE: "#2f86d6",
    Stage.DENOISE: "#1f9a6d",
    Stage.DECODE: "#c9741a",
}
"""The stages in the order they run."""

COINCIDE = 0.02
"""Curves that are nowhere farther apart than this share of the plot's height are one line."""

LABEL_SHARE = 0.043
"""The height of a label, as a share of the plot's height."""

_STYLE = {
    # Names of drawn parts are derived from this, not from a random number.
    "svg.hashsalt": "acestep",
    # Text stays text: small files, searchable, and independent of the fonts of the rendering machine.
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "savefig.transparent": True,
}


def plots(table: TierTable, policy: Policy, records: Sequence[Measurement]) -> Mapping[str, str]:
    """Return every plot by its file name; one without data is left out."""
    by_digest = {record.digest: record for record in records}
    found: dict[str, str] = {}
    for variant, tiers in ((variant, entry.tiers) for variant, entry in table.variants.items()):
        found |= _named(f"vram-{variant}", _draw_vram, panels(variant, tiers, policy, by_digest))
        found |= _named(f"stages-{variant}", _draw_stages, stage_bars(variant, tiers, policy, by_digest))
        found |= _named(f"agreement-{variant}", _draw_agreement, pairs(variant, records))
    return found


def same_drawing(one: str, other: str) -> bool:
    """Return whether two SVGs show the same data by different releases of matplotlib, which place text differently."""
    by, shown = (_METADATA[name].findall for name in ("creator", "data"))
    return bool(shown(one)) and shown(one) == shown(other) and by(one) != by(other)


_METADATA = {
    "creator": re.compile(r"<dc:title>(matplotlib [0-9.a-z]+)</dc:title>"),
    "data": re.compile(r"<dc:description>(sha256:[0-9a-f]{64})</dc:description>"),
}


def _named(name: str, draw: Any, data: Sequence[Any]) -> dict[str, str]:
    if not data:
        return {}
    with mpl.rc_context(_STYLE):
        figure: Figure = draw(data)
        FigureCanvasSVG(figure)
        # As saving does it, but saving draws the whole figure once more to have the layout.
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)
            figure.set_layout_engine(None)
        text = io.StringIO()
        about = {"Creator": f"matplotlib {mpl.__version__}", "Description": digest((name, data)), "Date": None}
        figure.savefig(text, format="svg", metadata=about)
    return {f"{name}.svg": text.getvalue()}


def _figure(height: float) -> tuple[Figure, Any]:
    """One plot as wide as a page: text keeps its size there."""
    figure = Figure(figsize=(8.6, height), layout="constrained")
    axis = figure.subplots()
    axis.grid(axis="y")
    axis.set_axisbelow(True)
    return figure, axis


def _draw_vram(drawn: Sequence[Panel]) -> Figure:
    figure, axis = _figure(5.4)
    low, high = _window(drawn)
    labels: list[tuple[float, str, str]] = []
    for panel, colour in zip(drawn, cycle(WAY_COLOURS), strict=False):
        weights = panel.quantization.upper() if panel.quantization else "exact"
        for line in lines(panel.curves, COINCIDE * (high - low) * GIB):
            minutes, sizes = _scaled(line.points)
            axis.plot(minutes, sizes, color=colour, linewidth=2)
            labels.append((sizes[-1], f"{panel.offload}, {weights}: {', '.join(map(str, line.batches))} songs", colour))
        bounded = {(batch, n_bytes) for batch, (_, n_bytes) in panel.fails}
        fits = [(batch, point) for batch, point in panel.fits if (batch, point[1]) in bounded]
        for shape, found in (("^", fits), ("x", panel.fails)):
            minutes, sizes = _scaled([point for _, point in found])
            axis.plot(minutes, sizes, shape, color=colour, markersize=8, markeredgewidth=2)
    end = MAX_DURATION_S / 60
    axis.set(xlim=(0, 1.02 * end), ylim=(low, high), xlabel="song length, min", ylabel="smallest cap that fits, GiB")
    for place, (_, text, colour) in zip(_spread(labels, low, high), sorted(labels), strict=True):
        axis.annotate(text, (1.01, place), xycoords=("axes fraction", "data"), va="center", color=colour, fontsize=10)
    for budget in drawn[0].budgets:
        if low < budget.n_bytes / GIB < high:
            axis.axhline(budget.n_bytes / GIB, color=INK, linestyle="--", linewidth=1)
            axis.annotate(budget.label, (0.05, budget.n_bytes / GIB), va="bottom", fontsize=9)
    marks = [("^", "None", "fits"), ("x", "None", "does not fit"), ("", "--", "budget of a tier")]
    figure.legend(
        handles=[
            Line2D([], [], color=INK, marker=marker, linestyle=style, linewidth=1, label=label)
            for marker, style, label in marks
        ],
        loc="outside upper left",
        ncols=len(marks),
    )
    return figure


def _scaled(points: Sequence[tuple[int, int]]) -> tuple[list[float], list[float]]:
    return [seconds / 60 for seconds, _ in points], [n_bytes / GIB for _, n_bytes in points]


def _window(drawn: Sequence[Panel]) -> tuple[float, float]:
    """Return the range in GiB that contains every curve, from 0 to the next budget above them."""
    curves = [n_bytes for panel in drawn for curve in panel.curves for _, n_bytes in curve.points]
    probes = [n_bytes for panel in drawn for _, (_, n_bytes) in panel.fails]
    budgets = [budget.n_bytes for budget in drawn[0].budgets]
    top = max(curves + probes, default=max(budgets))
    return 0.0, 1.04 * min((n_bytes for n_bytes in budgets if n_bytes > top), default=top) / GIB


def _spread(labels: Sequence[tuple[float, str, str]], low: float, high: float) -> list[float]:
    """Return a height for each label in rising order, near its line's end and clear of the label below."""
    least = LABEL_SHARE * (high - low)
    places: list[float] = []
    for wanted, *_ in sorted(labels):
        places.append(max(wanted, places[-1] + least) if places else wanted)
    if (over := places[-1] - high if places else 0.0) > 0:
        places = [place - over for place in places]
    return places


def _draw_stages(drawn: Sequence[StageBar]) -> Figure:
    stages = _in_order({bar.stage.name for bar in drawn})
    tiers = list(dict.fromkeys(bar.tier for bar in drawn))
    figure, axis = _figure(4.8)
    width = 0.84 / len(stages)
    for bar in drawn:
        place = tiers.index(bar.tier) + width * (stages.index(bar.stage.name) - (len(stages) - 1) / 2)
        colour, bottom = STAGE_COLOURS.get(bar.stage.name, INK), 0.0
        for part, n_bytes in bar.parts.items():
            axis.bar(place, n_bytes / GIB, bottom=bottom, color=colour, alpha=PART_SHADES[part], width=0.9 * width)
            bottom += n_bytes / GIB
    for place, tier in enumerate(tiers):
        budget = next(bar.budget for bar in drawn if bar.tier == tier)
        axis.plot([place - 0.44, place + 0.44], [budget / GIB] * 2, color=INK, linewidth=2)
    axis.set_xticks(range(len(tiers)), tiers)
    # The largest cards would press the smallest ones flat: what a run takes decides the height.
    axis.set_ylim(0, 1.15 * max(sum(bar.parts.values()) for bar in drawn) / GIB)
    axis.set_ylabel("on the card at the peak, GiB")
    handles = [Line2D([], [], color=STAGE_COLOURS.get(name, INK), linewidth=8, label=name) for name in stages]
    handles += [Line2D([], [], color=INK, linewidth=8, alpha=shade, label=part) for part, shade in PART_SHADES.items()]
    handles.append(Line2D([], [], color=INK, linewidth=2, label="budget"))
    figure.legend(handles=handles, loc="outside upper center", ncols=5)
    return figure


def _in_order(stages: Set[str]) -> list[str]:
    """Stages in the order they run, then those of another release."""
    return [*(name for name in STAGE_COLOURS if name in stages), *sorted(stages - set(STAGE_COLOURS))]


def _draw_agreement(drawn: Sequence[StagePair]) -> Figure:
    figure, axis = _figure(6.0)
    for stage in _in_order({pair.stage for pair in drawn}):
        colour = STAGE_COLOURS.get(stage, INK)
        found = [pair for pair in drawn if pair.stage == stage]
        measured, simulated = [p.measured / GIB for p in found], [p.simulated / GIB for p in found]
        axis.plot(measured, simulated, "o", color=colour, label=stage, alpha=0.8)
    top = 1.05 * max(max(pair.measured, pair.simulated) for pair in drawn) / GIB
    axis.plot([0, top], [0, top], color=INK, linestyle="--", linewidth=1, label="equal")
    axis.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    axis.set_xlabel("measured peak, GiB")
    axis.set_ylabel("simulated peak, GiB")
    axis.legend(loc="upper left", fontsize=9)
    return figure
