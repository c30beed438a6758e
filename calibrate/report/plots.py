"""The plots of the guide as SVG, readable on light and on dark pages; the same data gives the same bytes."""

import io
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from acestep.request import MAX_DURATION_S
from acestep.stage import Stage
from acestep.tiers import BATCHES, TierTable
from acestep.units import GIB
from calibrate.files import digest
from calibrate.record.measurement import Measurement
from calibrate.report.plot_data import Panel, StageBar, StagePair, pairs, panels, stage_bars
from calibrate.table.policy import Policy

INK = "#7b7f86"
"""Text and lines: a grey with enough contrast to both white and black (a test computes it)."""

BATCH_COLOURS = dict(zip(BATCHES, ("#2f86d6", "#1f9a6d", "#c9741a", "#b85fd0"), strict=True))
PART_COLOURS = {"weights": "#2f86d6", "activations": "#c9741a", "allowance": "#8a8d93"}
STAGE_COLOURS: dict[str, str] = {
    Stage.THINK: "#b85fd0",
    Stage.ENCODE_AUDIO: "#d9534f",
    Stage.ENCODE: "#2f86d6",
    Stage.DENOISE: "#1f9a6d",
    Stage.DECODE: "#c9741a",
}
"""The stages in the order they run."""

_STYLE = {
    # Names of drawn parts are derived from this, not from a random number.
    "svg.hashsalt": "acestep",
    # Text stays text: small files, searchable, and independent of the fonts of the rendering machine.
    "svg.fonttype": "none",
    "font.size": 10,
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


def _figure(columns: int, *, height: float = 3.6, share_y: bool) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(max(4.6, 3.3 * columns), height), layout="constrained")
    axes = figure.subplots(1, columns, sharey=share_y, squeeze=False)[0]
    for axis in axes:
        axis.grid(axis="y")
        axis.set_axisbelow(True)
    return figure, list(axes)


def _draw_vram(drawn: Sequence[Panel]) -> Figure:
    figure, axes = _figure(len(drawn), share_y=False, height=4.0)
    for axis, panel in zip(axes, drawn, strict=True):
        for curve in panel.curves:
            minutes, sizes = _scaled(curve.points)
            axis.plot(minutes, sizes, color=BATCH_COLOURS[curve.batch], linewidth=2)
        for shape, found in (("^", panel.fits), ("x", panel.fails)):
            for batch, point in found:
                minutes, sizes = _scaled([point])
                axis.plot(minutes, sizes, shape, color=BATCH_COLOURS[batch], markersize=7)
        low, high = _window(panel)
        axis.set(xlim=(0, 1.04 * MAX_DURATION_S / 60), ylim=(low, high))
        for line in panel.budgets:
            if low < line.n_bytes / GIB < high:
                axis.axhline(line.n_bytes / GIB, color=INK, linestyle="--", linewidth=1)
                axis.annotate(
                    line.label,
                    (1.01, line.n_bytes / GIB),
                    xycoords=("axes fraction", "data"),
                    verticalalignment="center",
                    fontsize=9,
                )
        axis.set_title(f"offload {panel.offload}, {panel.quantization or 'exact'}")
        axis.set_xlabel("song length, min")
    axes[0].set_ylabel("smallest cap that fits, GiB")
    figure.legend(handles=_batch_legend(), loc="outside upper center", ncols=len(BATCHES) + 3, fontsize=9)
    return figure


def _scaled(points: Sequence[tuple[int, int]]) -> tuple[list[float], list[float]]:
    return [seconds / 60 for seconds, _ in points], [n_bytes / GIB for _, n_bytes in points]


def _window(panel: Panel) -> tuple[float, float]:
    """Return the range in GiB that contains the curves, the boundaries and the nearest budget on each side."""
    curves = [n_bytes for curve in panel.curves for _, n_bytes in curve.points]
    # A song that fits far below a budget says nothing about need; it would only flatten the curves.
    probes = [n_bytes for _, (_, n_bytes) in panel.fails]
    budgets = [line.n_bytes for line in panel.budgets]
    low, high = min(curves + probes, default=min(budgets)), max(curves + probes, default=max(budgets))
    low = max((n for n in budgets if n < low), default=low)
    high = min((n for n in budgets if n > high), default=high)
    margin = 0.08 * max(high - low, GIB / 8)
    return (low - margin) / GIB, (high + margin) / GIB


def _batch_legend() -> list[Line2D]:
    lines = [Line2D([], [], color=colour, linewidth=2, label=f"batch {n}") for n, colour in BATCH_COLOURS.items()]
    marks = [("^", "None", "fits"), ("x", "None", "does not fit"), ("", "--", "a tier's budget")]
    return lines + [
        Line2D([], [], color=INK, marker=marker, linestyle=style, linewidth=1, label=label)
        for marker, style, label in marks
    ]


def _draw_stages(drawn: Sequence[StageBar]) -> Figure:
    stages = _in_order({bar.stage.name for bar in drawn})
    tiers = list(dict.fromkeys(bar.tier for bar in drawn))
    figure, axes = _figure(len(stages), share_y=True)
    for axis, stage in zip(axes, stages, strict=True):
        for bar in (bar for bar in drawn if bar.stage.name == stage):
            place, bottom = tiers.index(bar.tier), 0.0
            for part, n_bytes in bar.parts.items():
                axis.bar(place, n_bytes / GIB, bottom=bottom, color=PART_COLOURS[part], width=0.7)
                bottom += n_bytes / GIB
            axis.plot([place - 0.45, place + 0.45], [bar.budget / GIB] * 2, color=INK, linewidth=2)
        axis.set_xticks(range(len(tiers)), tiers, rotation=60, ha="right", rotation_mode="anchor")
        axis.set_title(stage)
        # The largest cards would press the smallest ones flat: what a run takes decides the height.
        axis.set_ylim(0, 1.15 * max(sum(bar.parts.values()) for bar in drawn) / GIB)
    axes[0].set_ylabel("on the card at the peak, GiB")
    handles = [Line2D([], [], color=colour, linewidth=6, label=part) for part, colour in PART_COLOURS.items()]
    handles.append(Line2D([], [], color=INK, linewidth=2, label="the tier's budget"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=9)
    return figure


def _in_order(stages: Set[str]) -> list[str]:
    """Stages in the order they run, then those of another release."""
    return [*(name for name in STAGE_COLOURS if name in stages), *sorted(stages - set(STAGE_COLOURS))]


def _draw_agreement(drawn: Sequence[StagePair]) -> Figure:
    figure, (axis,) = _figure(1, share_y=False, height=4.6)
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
