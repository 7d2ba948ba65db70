"""Measure one row: make the model, predict what it takes, and count."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from converter.errors import ConverterError
from converter.load.model import load
from converter.options import Options
from converter.targets import find_target
from runtime_tests.emulation.count import count
from runtime_tests.emulation.environment import environment
from tools.benchmarks.instructions.models import Workshop, float_model, our_model, static_model
from tools.benchmarks.instructions.rows import FLOAT, STATIC, Row
from tools.benchmarks.real.file_costs import file_cost
from tools.benchmarks.real.session_settings import settings_for
from tools.calibration import calibration_feeds

__all__ = ["Run", "measure_row"]


@dataclass(frozen=True)
class Run:
    """What all rows share.

    Attributes:
        shop: where and from what models are made.
        root: folder of the emulated machine's set-up; None for the usual one.
    """

    shop: Workshop
    root: Path | None


def measure_row(run: Run, row: Row, floats: float | None) -> Row:
    """The row with what was measured; what goes wrong is its remark.

    Args:
        run: what all rows share.
        row: what is wanted.
        floats: millions of instructions of the float model there, None if they are not known or wanted now.
    """
    try:
        row = replace(row, counted=count([_path(run.shop, row)], row.core, env=environment(run.root, row.runtime))[0].median / 1e6)
        row = replace(row, predicted=_predicted(run.shop, row))
    except ConverterError as error:
        row = replace(row, remark=_told(error))
    return _compared(row, row.counted if row.form == FLOAT else floats)


def _path(shop: Workshop, row: Row) -> Path:
    if row.form == FLOAT:
        return float_model(shop, row.network)
    return static_model(shop, row.network) if row.form == STATIC else our_model(shop, row.network, row.target).path


def _predicted(shop: Workshop, row: Row) -> float:
    """Millions of instructions: as ``convert.py`` tells them of float and ours, and by the same prices of the other tool's kernels."""
    if row.form != STATIC:
        ours = our_model(shop, row.network, row.target)
        return (ours.predicted_float if row.form == FLOAT else ours.predicted) / 1e6
    model, source = onnx.load(static_model(shop, row.network)), load(float_model(shop, row.network))
    (feed,) = calibration_feeds(source, shop.calib, count=1, seed=Options.seed)
    return file_cost(model, feed, settings_for(model), find_target(row.target)) / 1e6


def _compared(row: Row, floats: float | None) -> Row:
    if row.counted is None:
        return row
    error = None if row.predicted is None else 100.0 * (row.predicted / row.counted - 1.0)
    return replace(row, error=error, ratio=None if floats is None else row.counted / floats)


def _told(error: ConverterError) -> str:
    return (f"{error.what} ({error.where})" if error.where else error.what)[:300].replace("\n", " ")
