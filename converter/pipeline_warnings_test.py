"""What a conversion warns of, and what it tells besides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converter import report as report_module
from converter.options import Options
from converter.pipeline import convert
from converter.progress import Progress
from converter.testing.models import SaveHybrid, Values, WriteImages, make_model

pytestmark = pytest.mark.usefixtures("few_turns")


def options(**changes: Any) -> Options:
    return Options(**{"samples": 4, "threads": 1, "method": "minmax", "placement": "all", **changes})


def test_a_low_quality_is_warned_about(save_hybrid: SaveHybrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "LOW_SQNR_DB", 150.0)
    report = convert(save_hybrid(), tmp_path / "out.onnx", options())
    assert "'logits' is far from float" in report.warnings[0]


@pytest.mark.parametrize("placement", ["latency", "all"])
def test_where_no_operator_has_an_integer_form_the_warning_says_so_and_why(placement: str, tmp_path: Path) -> None:
    """``--placement all`` would not help, so it is not recommended."""
    vectors = {"inner": np.ones(8, np.float32), "outer": np.ones(4, np.float32)}
    nodes = [
        helper.make_node("Erf", ["x"], ["y"]),
        helper.make_node("MatMul", ["y", "inner"], ["z"]),
        helper.make_node("MatMul", ["z", "outer"], ["out"]),
    ]
    ends = [("x", TensorProto.FLOAT, [2, 4, 8])], [("out", TensorProto.FLOAT, [2])]
    source = tmp_path / "float.onnx"
    onnx.save(make_model(nodes, *ends, initializers=vectors), source)
    report = convert(source, tmp_path / "out.onnx", options(placement=placement))
    why = "none has an integer form (2 of 3: an operand is not a matrix)"
    assert report.warnings == (f"all operators stay float: {why}",)


def test_where_integers_would_save_too_little_the_warning_says_what_forces_them(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    report = convert(save_hybrid(), tmp_path / "out.onnx", options(target="x86", placement="latency"))
    assert report.warnings[0].endswith("integer ones would save too little on x86 (--placement all forces them)")


def test_one_sample_is_told(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.zeros((1, 3, 32, 32), np.float32) + 0.5)
    report = convert(save_hybrid(), tmp_path / "out.onnx", options(calib=tmp_path / "data.npy"), dry_run=True)
    assert any("one sample" in note for note in report.notes)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("method", ["mse", "q-hyvit"])
def test_data_that_say_nothing_are_used_with_a_warning(tmp_path: Path, method: str) -> None:
    """Everything is zero then: grids are the finest there are, and what has no upper limit lies far beyond them."""
    weights = {"w": np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["y"])]
    model = make_model(nodes, [("x", TensorProto.FLOAT, ["n", 3, 8, 8])], [("y", TensorProto.FLOAT, ["n", 8, 8, 8])], initializers=weights)
    onnx.save(model, tmp_path / "in.onnx")
    np.save(tmp_path / "black.npy", np.zeros((6, 3, 8, 8), np.float32))
    told: list[str] = []
    given = options(calib=tmp_path / "black.npy", method=method)
    report = convert(tmp_path / "in.onnx", tmp_path / "out.onnx", given, progress=Progress(note=told.append))
    assert "all 4 calibration samples are equal" in report.warnings[0]
    assert "one colour only" in report.warnings[1]
    assert list(report.warnings[:2]) == told and report.notes == ()


def test_the_plan_of_another_file_is_used_with_a_warning(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    """Of the network trained again, for instance: it has the same operators, and other numbers."""
    plan, adopting = tmp_path / "plan.json", options(plan_in=tmp_path / "plan.json")
    convert(save_hybrid(), None, options(), dry_run=True, plan_out=plan)
    assert convert(save_hybrid(), None, adopting, dry_run=True, plan_out=tmp_path / "same.json").warnings == ()
    assert (tmp_path / "same.json").read_text() == plan.read_text()
    (warning,) = convert(save_hybrid(seed=1), None, adopting, dry_run=True).warnings
    assert warning.startswith("the plan was made for another model file")
    record = json.loads(plan.read_text())
    del record["source"]  # as plans of earlier versions are
    plan.write_text(json.dumps(record))
    assert convert(save_hybrid(seed=1), None, adopting, dry_run=True).warnings == ()


def test_what_nobody_said_of_images_is_told(tmp_path: Path, write_images: WriteImages) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Mul", ["r", "factor"], ["y"])]
    shape: list[int | str | None] = [1, 3, 8, 8]
    inputs: Values = [("x", TensorProto.FLOAT, shape), ("factor", TensorProto.FLOAT, [1])]
    onnx.save(make_model(nodes, inputs, [("y", TensorProto.FLOAT, shape)]), tmp_path / "in.onnx")
    told: list[str] = []
    given = options(calib=write_images(tmp_path / "images"))
    report = convert(tmp_path / "in.onnx", tmp_path / "out.onnx", given, progress=Progress(note=told.append))
    assert [any(part in note for note in told) for part in ("scaled to 0..1", "factor = ones")] == [True, True]
    assert [note for note in report.notes if note in told] == told
