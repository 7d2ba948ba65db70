"""A conversion in a few sentences: each follows from a figure of the report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from converter.options import Options
from converter.partition.cost_model import CostEstimate
from converter.pipeline import convert
from converter.report import Report, summarise
from converter.runtime.latency import LatencyRatio
from converter.testing.models import SaveHybrid, WriteImages


@pytest.fixture(scope="module")
def report(save_hybrid: SaveHybrid, write_images: WriteImages, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("summary")
    options = Options(samples=4, threads=1, method="minmax", placement="all", calib=write_images(folder / "images"))
    found = convert(save_hybrid(), None, options, report_out=folder / "page.html")
    return replace(
        found,
        architectures=("another",),
        latency=None,
        predicted=40.0,
        predicted_float=100.0,
        second_cost=CostEstimate("cycles", 9.0, 20.0),
        float_bytes=4000,
        integer_bytes=1000,
    )


def with_ratio(report: Report, db: float) -> Report:
    """The same with another SQNR of its output."""
    assert report.verdict is not None
    return replace(report, verdict=replace(report.verdict, outputs=(replace(report.verdict.outputs[0], sqnr_db=db, agreement=0.95),)))


def test_what_is_gained(report: Report) -> None:
    assert report.verdict is not None
    assert summarise(report).gained == (
        "The file has 25% of the size of the float one.",
        "One inference is predicted to take 40% of the instructions of float on arm64.",
        "One inference is predicted to take 45% of the cycles of float on arm64.",
        f"{report.verdict.integer_coverage.coverage:.1%} of the multiply-accumulates ran in integer.",
    )


@pytest.mark.parametrize(
    "ratio, words", [(1.5, "it is 1.50 times as fast as float"), (0.8, "it is slower than, at 0.80 times the speed of, float")]
)
def test_what_was_measured_here(report: Report, ratio: float, words: str) -> None:
    measured = replace(report, latency=replace(LatencyRatio(1.0, 0.9, 1.1, 9), ratio=ratio))
    assert summarise(measured).gained[-1] == f"On this machine, which the file is not made for, {words}."


def test_what_is_lost(report: Report) -> None:
    lost = summarise(with_ratio(report, 31.26)).lost
    assert lost == ("Output 'logits' has 31.3 dB SQNR against float, with the same highest score at 95.0% of places.",)


def test_what_to_do_next(report: Report) -> None:
    good, bad = with_ratio(report, 35.0), with_ratio(report, 9.0)
    assert summarise(good).next == "Measure its speed on a device of class arm64, and its accuracy on labelled data."
    assert summarise(bad).next.startswith("Check the accuracy on labelled data before use, and keep the worst tensors float, from '")
    assert summarise(replace(bad, calibration="synthetic images")).next.startswith("Give real images with --calib")
    assert summarise(replace(good, verdict=None)).next.startswith("Convert without --dry-run")
    nothing = {name: replace(op, runs="float") for name, op in good.plan.ops.items()}
    assert summarise(replace(good, plan=replace(good.plan, ops=nothing))).next.startswith("Nothing runs in integer")


def test_a_dry_run_loses_nothing_that_is_known(report: Report) -> None:
    assert summarise(replace(report, verdict=None)).lost == ("Nothing was emitted on this dry run, so the outputs were not compared.",)
