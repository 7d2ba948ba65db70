"""The measurements as a picture: mean drop by width, one line for each method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import matplotlib

from tools.benchmarks.compare.cells import FLOAT, Row

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import FixedLocator

__all__ = ["plot_means"]

_LINEAR_BELOW = 1.0
_TICKS = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)


def plot_means(rows: Sequence[Row], path: Path) -> None:
    """Draw the mean drop of each method over the widths that all its models have; an SVG file."""
    widths = list(dict.fromkeys(r.bits for r in rows if r.bits))
    models = {r.model for r in rows}
    with pyplot.rc_context({"svg.hashsalt": "bridgequant", "font.size": 9}):
        figure, axes = pyplot.subplots(figsize=(7.0, 4.0), layout="constrained")
        for method in dict.fromkeys(r.method for r in rows if r.method != FLOAT):
            points = []
            for place, bits in enumerate(widths):
                drops = [r.drop for r in rows if (r.method, r.bits) == (method, bits) and not r.failure]
                if len(drops) == len(models):
                    points.append((place, mean(drops)))
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=method)
        axes.set_yscale("symlog", linthresh=_LINEAR_BELOW)
        axes.yaxis.set_major_locator(FixedLocator(_TICKS))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(axis="y", linewidth=0.3)
        axes.set_xticks(range(len(widths)), widths)
        axes.set_ylabel(f"mean top-1 drop, points, {len(models)} models")
        axes.axhline(0.0, color="grey", linewidth=0.5)
        axes.legend(fontsize=8)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
