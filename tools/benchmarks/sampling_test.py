"""The benchmark measures what it says: no loss when all places are sampled, some when the samples mislead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from converter.sensitivity.layer_samples import LayerSample
from converter.testing.models import hybrid_model
from tools.benchmarks.sampling import LayerResult, compare_layer, main, summary


def layer(rows: int = 96) -> LayerSample:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(1, rows, 12, generator=generator), torch.randn(1, 12, 7, generator=generator)
    return LayerSample("layer", ("x",), left, right, torch.rand(1, rows, 7, generator=generator), rows)


@pytest.mark.parametrize("bits", [4, 8])
def test_all_places_sampled_is_no_loss(bits: int) -> None:
    assert compare_layer(layer(), layer(), bits).excess <= 1.0 + 1e-6


def test_samples_that_mislead_cost_something() -> None:
    everything = layer()
    small = replace(everything, left=everything.left * 0.05)
    assert compare_layer(small, everything, 4).excess > 1.5


def test_the_summary_names_the_worst_layer() -> None:
    results = [LayerResult("a", 1.0, 0.5, 4.0), LayerResult("b", 1.2, 0.5, 4.0)]
    text = summary(results, 6)
    assert "mean 1.1000" in text and "worst 1.2000 (b)" in text and "1.0 s against 8.0 s" in text


def test_it_prints_a_line_for_each_width(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(hybrid_model(), tmp_path / "model.onnx")
    assert main([str(tmp_path / "model.onnx"), "--samples", "2", "--bits", "6", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["6 bits", "4 bits"]
