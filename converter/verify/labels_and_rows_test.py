"""Verdicts on labels, on rows that the model selects, and on outputs that are infinite by intention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.errors import VerificationError
from converter.load.model import load
from converter.runtime.session import open_session, run_session
from converter.testing.sketch import Sketch, feeds_for, plan_for
from converter.verify.parity import Differing, integers_are_broken
from converter.verify.quality import sqnr
from converter.verify.testing.conversions import Case, initializers, overwrite, saved


def labels(path: Path) -> Case:
    """A map of labels, and nothing else."""
    sketch = Sketch()
    found = sketch.add("ArgMax", sketch.conv(sketch.input("x", 1, 8, 6, 6), 8, name="scores"), axis=1, name="labels")
    return saved(sketch.model(found, dtype=onnx.TensorProto.INT64), path)


def test_integers_are_compared_with_float_and_with_the_plan_by_how_many_are_equal(tmp_path: Path) -> None:
    case = labels(tmp_path / "labels.onnx")
    verdict = case.verify_emitted()
    (output,) = verdict.outputs
    floats, ints = (open_session(m, threads=1) for m in (case.source.model, ir.to_proto(case.emitted())))
    same = [run_session(floats, f)["labels.0"] == run_session(ints, f)["labels.0"] for f in case.feeds]
    assert output.sqnr_db is None and output.agreement == pytest.approx(np.mean(same)) and not np.all(same)
    assert verdict.parity_db is None and verdict.parity_agreement == 1.0
    assert verdict.parity_reference == "a simulation of the plan"


def test_tampered_weights_in_front_of_labels_break_parity(tmp_path: Path) -> None:
    case = labels(tmp_path / "labels.onnx")
    model = case.emitted()
    (weight,) = initializers(model, "INT8", "_quantized")
    overwrite(weight, lambda a: -a)
    with pytest.raises(VerificationError, match=r"does not compute what was planned: \d+ of 108 elements of 'labels.0' differ"):
        case.verify(model)


@pytest.mark.parametrize(
    ("count", "db", "agreement", "broken"),
    [
        (0, 200.0, 1.0, False),
        (10, 5.0, 1.0, False),  # one in a hundred
        (20, 5.0, 1.0, True),
        (20, 5.0, 0.95, False),  # quantization changed more than twice as many
        (20, 5.0, 0.97, True),
        (900, 5.0, 0.1, True),
        (900, 30.0, 0.1, False),  # of a picture, whose codes are one beside the right ones
    ],
)
def test_wrong_labels_are_told_from_chaos(count: int, db: float, agreement: float, broken: bool) -> None:
    assert integers_are_broken(Differing(count, 1000, db), agreement) is broken


def test_one_label_alone_is_no_evidence() -> None:
    assert not integers_are_broken(Differing(1, 4, 5.0), 1.0)
    assert integers_are_broken(Differing(2, 4, 5.0), 1.0)


def detector(path: Path, *, count: int = 16) -> Case:
    """Boxes and scores of the tokens with the highest scores, of 64; all scores are nearly the same."""
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 8, 8), 8)
    tokens = sketch.add("Transpose", sketch.add("Reshape", x, sketch.constant([1, 8, 64], np.int64)), perm=[0, 2, 1])
    scores = sketch.add("MatMul", tokens, sketch.normal(8, 3, scale=0.01))
    best = sketch.add("ReduceMax", scores, sketch.constant([-1], np.int64), keepdims=0)
    _, places = sketch.split("TopK", best, sketch.constant([count], np.int64), outputs=2, axis=1)
    found = []
    for values, width in ((sketch.add("MatMul", tokens, sketch.normal(8, 4)), 4), (scores, 3)):
        index = sketch.add(
            "Tile", sketch.add("Unsqueeze", places, sketch.constant([-1], np.int64)), sketch.constant([1, 1, width], np.int64)
        )
        found.append(sketch.add("GatherElements", values, index, axis=1))
    return saved(sketch.model(*found), path)


def test_rows_that_a_topk_selects_are_matched(tmp_path: Path) -> None:
    case = detector(tmp_path / "detector.onnx", count=64)
    boxes, scores = case.verify_emitted().outputs
    assert boxes.sqnr_db is not None and scores.sqnr_db is not None
    assert boxes.rows_matched and scores.rows_matched and boxes.rows_unmatched == 0
    assert min(boxes.sqnr_db, scores.sqnr_db) > 25.0
    floats, ints = (open_session(m, threads=1) for m in (case.source.model, ir.to_proto(case.emitted())))
    one, other = (np.stack([run_session(s, f)[boxes.name] for f in case.feeds]) for s in (floats, ints))
    assert sqnr(one, other) < 10.0  # place by place


def test_a_defect_behind_selected_rows_is_not_matched_away(tmp_path: Path) -> None:
    case = detector(tmp_path / "detector.onnx")
    verdict = case.verify_emitted()
    assert verdict.parity_db is not None and verdict.parity_db > 100.0 and verdict.parity_reference == "a simulation of the plan"
    model = case.emitted()
    (weight,) = [v for v in initializers(model, "INT8", "_quantized") if v.const_value is not None and v.const_value.shape == [8, 4]]
    overwrite(weight, lambda a: a // 2)
    with pytest.raises(VerificationError, match="does not compute what was planned") as caught:
        case.verify(model)
    assert caught.value.where == "compared with a simulation of the plan, rows matched"


def thresholded(path: Path, threshold: float) -> Case:
    """The tokens whose score is above a threshold: how many there are depends on the data."""
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 8, 8), 8)
    tokens = sketch.add("Transpose", sketch.add("Reshape", x, sketch.constant([8, 64], np.int64)), perm=[1, 0])
    score = sketch.add("ReduceMax", tokens, sketch.constant([1], np.int64), keepdims=0)
    place = sketch.add("NonZero", sketch.add("Greater", score, sketch.constant(threshold)))
    picked = sketch.add("GatherND", tokens, sketch.add("Transpose", place, perm=[1, 0]), name="picked")
    model = sketch.model(picked)
    onnx.save(ir.to_proto(model), path)
    many = [{"x": 3 * feed["x"]} for feed in feeds_for(model, 4)]
    return Case(load(path), plan_for(model, feeds=many), list(feeds_for(model, 6, seed=7)))


def test_another_number_of_rows_is_no_crash_and_is_told(tmp_path: Path) -> None:
    (output,) = thresholded(tmp_path / "many.onnx", 2.0).verify_emitted().outputs
    assert output.rows_matched and 0 < output.rows_unmatched < 20
    assert output.sqnr_db is not None and 5.0 < output.sqnr_db < 30.0


def test_no_row_on_any_sample_says_nothing_of_accuracy(tmp_path: Path) -> None:
    verdict = thresholded(tmp_path / "none.onnx", 5.5).verify_emitted()
    (output,) = verdict.outputs
    assert (output.sqnr_db, output.agreement, verdict.parity_db, verdict.parity_agreement) == (None, None, None, None)


def with_logarithm(path: Path) -> Case:
    """An output that is minus infinity where an input is not positive, as masked scores are; planned where it is positive."""
    sketch = Sketch()
    y = sketch.conv(sketch.input("x", 1, 8, 6, 6), 8)
    masked = sketch.add("Add", y, sketch.add("Log", sketch.add("Relu", sketch.input("mask", 1, 8, 6, 6))), name="masked")
    model = sketch.model(masked)
    onnx.save(ir.to_proto(model), path)
    positive = [{**feed, "mask": np.abs(feed["mask"])} for feed in feeds_for(model, 4)]
    planned = plan_for(model, feeds=positive, integer=["conv_0"])
    return Case(load(path), planned, list(feeds_for(model, 3, seed=7)))


def test_infinity_at_the_same_places_is_legal_and_the_rest_is_compared(tmp_path: Path) -> None:
    case = with_logarithm(tmp_path / "log.onnx")
    assert np.isneginf(run_session(open_session(case.source.model), case.feeds[0])["masked.0"]).mean() > 0.3
    verdict = case.verify_emitted()
    (output,) = verdict.outputs
    assert output.sqnr_db is not None and 25.0 < output.sqnr_db < 60.0
    assert verdict.parity_db is not None and verdict.parity_db > 100.0


def test_finite_numbers_where_the_float_model_has_infinity_are_refused(tmp_path: Path) -> None:
    case = with_logarithm(tmp_path / "log.onnx")
    model = case.emitted()
    relu = next(n for n in model.graph if n.op_type == "Relu")
    relu.op_type = "Exp"
    with pytest.raises(VerificationError, match="not finite where the float model's is, or the other way round") as caught:
        case.verify(model)
    assert caught.value.where == "output 'masked.0'"
