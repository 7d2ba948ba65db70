"""What counts as worse: the noise of all samples, not the luck of a few, and not where nothing can be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from converter.testing.models import make_model
from converter.testing.random_graphs.fairness import Judgement, judge

Array = npt.NDArray[Any]
ROWS = np.random.default_rng(0).standard_normal((48, 4)).astype(np.float32).clip(-3, 3)
ROWS[7, 0] = 4.0
FEEDS = [{"x": row[None]} for row in ROWS]


def model_of(*nodes: onnx.NodeProto, **constants: Array) -> onnx.ModelProto:
    return make_model(nodes, [("x", TensorProto.FLOAT, [1, 4])], [("y", TensorProto.FLOAT, [1, 4])], initializers=constants)


def scaled(factor: float) -> onnx.ModelProto:
    return model_of(helper.make_node("Mul", ["x", "c"], ["y"]), c=np.asarray(factor, np.float32))


def judged(folder: Path, base: onnx.ModelProto, other: onnx.ModelProto, truth: onnx.ModelProto | None = None) -> Judgement:
    paths = [folder / "base.onnx", folder / "other.onnx"]
    for path, model in zip(paths, (base, other), strict=True):
        onnx.save(model, path)
    (judgement,) = judge(truth or scaled(1.0), paths, FEEDS)
    return judgement


def test_twice_the_error_is_six_decibels_worse(tmp_path: Path) -> None:
    judgement = judged(tmp_path, scaled(1.05), scaled(1.1))
    np.testing.assert_allclose(judgement.loss_db, 6.0206, atol=1e-3)
    assert judgement.worse


def test_an_output_that_is_good_enough_is_never_worse(tmp_path: Path) -> None:
    assert not judged(tmp_path, scaled(1.0 + 1e-5), scaled(1.01)).worse


def test_beside_an_output_that_was_left_in_float_some_error_is_allowed_and_ruin_is_not(tmp_path: Path) -> None:
    assert not judged(tmp_path, scaled(1.0), scaled(1.05)).worse
    assert judged(tmp_path, scaled(1.0), scaled(1.2)).worse


def test_a_number_that_is_none_is_worse_than_any(tmp_path: Path) -> None:
    root = model_of(helper.make_node("Sqrt", ["x"], ["y"]))
    judgement = judged(tmp_path, scaled(2.0), root)
    assert judgement.other_db == -np.inf
    assert judgement.worse


def test_better_is_not_worse(tmp_path: Path) -> None:
    assert not judged(tmp_path, scaled(1.1), scaled(1.05)).worse


def clipped(factor: float, bound: float) -> onnx.ModelProto:
    nodes = helper.make_node("Min", ["x", "b"], ["z"]), helper.make_node("Mul", ["z", "c"], ["y"])
    return model_of(*nodes, b=np.asarray(bound, np.float32), c=np.asarray(factor, np.float32))


def test_one_outlier_among_the_samples_is_chance(tmp_path: Path) -> None:
    judgement = judged(tmp_path, scaled(1.03), clipped(1.03, 3.3))
    assert judgement.base_db - judgement.other_db > 3 > judgement.loss_db
    assert not judgement.worse


def fast_wave(phase: float) -> onnx.ModelProto:
    nodes = [helper.make_node("Mul", ["x", "c"], ["z"]), helper.make_node("Add", ["z", "p"], ["q"]), helper.make_node("Sin", ["q"], ["y"])]
    return model_of(*nodes, c=np.asarray(3e3, np.float32), p=np.asarray(phase, np.float32))


def test_nothing_is_worse_where_an_invisible_change_of_the_input_does_as_much(tmp_path: Path) -> None:
    judgement = judged(tmp_path, fast_wave(0.5), fast_wave(2.0), fast_wave(0.0))
    assert judgement.loss_db > 3
    assert not judgement.worse
