"""Each grid alone: what it costs is what rounding that one tensor, or weight, does to the output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from converter.graph.queries import constant
from converter.quantization.parameters import fake_quantize
from converter.sensitivity.context import stack
from converter.testing.models import hybrid_model
from converter.testing.sketch import Sketch, feeds_for, plan_for
from tools.layer_errors import Noise, main, noises


def power(x: np.ndarray) -> float:
    return float(np.square(x, dtype=np.float64).sum())


def test_the_noise_of_an_input_and_of_a_weight_is_that_of_rounding_it() -> None:
    sketch = Sketch()
    x = sketch.input("x", 1, 8, 6, 6)
    model = sketch.model(sketch.add("Conv", x, sketch.normal(4, 8, 1, 1), name="layer"))
    feeds = feeds_for(model, 3)
    plan = plan_for(model, bits=(4, 8), feeds=feeds).plan
    found = {(n.kind, n.name): n for n in noises(model, plan, stack(feeds))}
    inputs = np.concatenate([f["x"] for f in feeds])
    weight = constant(next(iter(model.graph)).inputs[1])
    assert weight is not None
    grid, weight_grid = plan.tensors["x"].params, plan.ops["layer"].constants[1]
    assert grid is not None

    def outputs(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.asarray(np.einsum("nchw,oc->nohw", x.astype(np.float64), w[:, :, 0, 0].astype(np.float64)))

    exact = outputs(inputs, weight)
    for key, got in {
        ("tensor", "x"): outputs(fake_quantize(inputs, grid), weight),
        ("weight", "layer"): outputs(inputs, fake_quantize(weight, weight_grid)),
    }.items():
        assert found[key].share == pytest.approx(power(got - exact) / power(exact), rel=1e-3)
    assert found["weight", "layer"].share > 10 * found["tensor", "x"].share


def test_shares_are_decibels_too() -> None:
    assert Noise("tensor", "t", "Conv", 0.01).decibels == pytest.approx(20.0)
    assert Noise("tensor", "t", "Conv", 0.0).decibels == float("inf")


def test_the_command_prints_the_loudest_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from converter.cli.main import main as convert

    path, plan = tmp_path / "model.onnx", tmp_path / "plan.json"
    onnx.save(hybrid_model(), path)
    arguments = [str(path), str(tmp_path / "out.onnx"), "--plan-out", str(plan), "--dry-run", "--placement", "all", "--samples", "4"]
    assert convert([*arguments, "--method", "minmax", "-q"]) == 0
    capsys.readouterr()
    assert main([str(path), str(plan), "--samples", "2", "--most", "5"]) == 0
    first, kinds, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and first.partition(" ")[0].isdecimal() and "tensor of" in kinds
    levels = [float(line.split()[0]) for line in lines]
    assert levels == sorted(levels)
    names = {*json.loads(plan.read_text())["tensors"], *json.loads(plan.read_text())["ops"]}
    assert all(line.split()[-1] in names for line in lines)


def test_a_plan_for_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(hybrid_model(), tmp_path / "model.onnx")
    (tmp_path / "plan.json").write_text("{}")
    assert main([str(tmp_path / "model.onnx"), str(tmp_path / "plan.json")]) == 2
    assert "not a plan" in capsys.readouterr().err
