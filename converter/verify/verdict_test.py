from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.canonicalise import canonicalise
from converter.errors import VerificationError
from converter.load.model import load
from converter.runtime.session import Feed
from converter.testing.models import SaveHybrid
from converter.testing.sketch import Sketch, feeds_for, plan_for
from converter.verify.parity import parity_is_broken
from converter.verify.quality import sqnr
from converter.verify.testing.conversions import Case, initializers, overwrite, saved


@pytest.fixture(scope="module")
def case(save_hybrid: SaveHybrid) -> Case:
    source = load(save_hybrid())
    generator = np.random.default_rng(0)
    feeds: list[Feed] = [{"image": generator.random((1, 3, 32, 32), dtype=np.float32)} for _ in range(10)]
    model = canonicalise(source.model, feeds[:1]).model
    return Case(source, plan_for(model, cheapest=True, placement="all", method="mse", feeds=feeds[:6]), feeds[6:])


def test_a_sound_conversion_passes(case: Case) -> None:
    verdict = case.verify(case.emitted())
    assert verdict.samples == 4
    assert (verdict.parity_db or 0.0) > 60.0
    assert "simulation" in verdict.parity_reference
    (logits,) = verdict.outputs
    assert logits.name == "logits" and (logits.sqnr_db or 0.0) > 15.0
    assert logits.agreement is None  # nobody said that they are class scores
    (scores,) = case.verify(case.emitted(), scores={"logits": -1}).outputs
    assert scores.agreement is not None and 0.0 <= scores.agreement <= 1.0
    assert 0.5 < verdict.integer_coverage.coverage <= 1.0


def test_verification_errors_have_exit_code_5() -> None:
    assert VerificationError("x").exit_code == 5


def test_tampered_weights_break_parity(case: Case) -> None:
    model = case.emitted()
    # the classifier's weights: few enough products to judge by eye, and directly before the output
    (weight,) = [v for v in initializers(model, "INT8", "_quantized") if "classifier" in str(v.name)]
    overwrite(weight, lambda a: -a)
    with pytest.raises(VerificationError, match="does not compute what was planned"):
        case.verify(model)


def test_a_tampered_scale_breaks_parity(case: Case) -> None:
    model = case.emitted()
    q = next(n for n in model.graph if n.op_type == "QuantizeLinear" and n.inputs[0] is not None and n.inputs[0].is_graph_input())
    scale = q.inputs[1]
    assert scale is not None
    overwrite(scale, lambda a: a * 2)
    with pytest.raises(VerificationError, match="does not compute what was planned"):
        case.verify(model)


def test_a_small_output_is_not_hidden_by_a_large_one(tmp_path: Path) -> None:
    """Ten thousandths as large, and wrong: pooled with the other it would drown."""
    sketch = Sketch()
    x = sketch.input("x", 1, 8, 6, 6)
    large = sketch.conv(sketch.add("Mul", x, sketch.constant(1e4)), 8, name="large")
    small = sketch.conv(x, 8, name="small")
    model = sketch.model(large, small)
    case = saved(model, tmp_path / "two.onnx")
    assert (case.verify_emitted().parity_db or 0.0) > 100.0
    broken = case.emitted()
    (weight,) = [v for v in initializers(broken, "INT8", "_quantized") if str(v.name).startswith("small")]
    overwrite(weight, lambda a: -a)
    with pytest.raises(VerificationError, match="does not compute what was planned"):
        case.verify(broken)


def test_an_output_that_is_zero_throughout_is_no_alarm(tmp_path: Path) -> None:
    sketch = Sketch()
    x = sketch.input("x", 1, 8, 6, 6)
    model = sketch.model(sketch.conv(x, 8), sketch.add("Mul", sketch.add("Abs", x), sketch.constant(0.0), name="dead"))
    case = saved(model, tmp_path / "dead.onnx")
    assert (case.verify_emitted().parity_db or 0.0) > 100.0


def test_a_model_that_does_not_load_is_refused(case: Case) -> None:
    model = case.emitted()
    node = next(n for n in model.graph if n.op_type == "Softmax")
    node.attributes["axis"] = ir.AttrInt64("axis", 9)
    with pytest.raises(VerificationError, match="does not run"):
        case.verify(model)


def test_a_model_that_fails_on_a_sample_is_refused(case: Case) -> None:
    model = case.emitted()
    shape = next(v for v in initializers(model, "INT64", "") if v.const_value is not None and v.const_value.size == 3)
    overwrite(shape, lambda a: np.asarray([7, 7, 7]))
    with pytest.raises(VerificationError, match="does not run"):
        case.verify(model)


def test_an_unsafe_graph_is_refused_before_it_is_run(case: Case) -> None:
    model = case.emitted()
    overwrite(initializers(model, "FLOAT", "_scale")[0], lambda a: a * 0)
    with pytest.raises(VerificationError, match="unsafe"):
        case.verify(model)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_refused(number: float, tmp_path: Path) -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 6, 6), 8)
    case = saved(sketch.model(sketch.add("LayerNormalization", x, sketch.constant(np.ones(6)))), tmp_path / "norm.onnx")
    model = case.emitted()
    overwrite(
        next(v for v in initializers(model, "FLOAT", "") if v.const_value is not None and v.const_value.shape == [6]), lambda a: a * number
    )
    with pytest.raises(VerificationError, match="not finite"):
        case.verify(model)


def test_a_divisor_that_vanishes_on_its_grid_is_named(tmp_path: Path) -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 6, 6), 8, name="conv")
    model = sketch.model(sketch.add("Div", sketch.add("Erf", x, name="erf"), x, name="ratio"))
    path = tmp_path / "ratio.onnx"
    onnx.save(ir.to_proto(model), path)
    case = Case(load(path), plan_for(model, full=True), list(feeds_for(model, 3, seed=7)))
    with pytest.raises(VerificationError, match="Div 'ratio' gives values that are not finite once its inputs are quantized") as caught:
        case.verify_emitted()
    assert caught.value.where == "output 'ratio.0'"
    assert caught.value.hint == "--exclude 'ratio' --exclude 'erf' --exclude 'conv'"


def test_scores_that_vanish_beside_pixels_are_found_in_their_group(tmp_path: Path) -> None:
    """On one grid for 0..640 a score of at most 1 is 0, and the whole has 45 dB all the same."""
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 6, 6), 8)
    boxes = sketch.add("Mul", sketch.add("Sigmoid", sketch.conv(x, 8, outputs=4)), sketch.constant(640.0))
    scores = sketch.add("Sigmoid", sketch.conv(x, 8, outputs=5))
    case = saved(sketch.model(sketch.add("Concat", boxes, scores, axis=1, name="joined")), tmp_path / "head.onnx")
    groups = {"joined.0": (1, ((0, 4), (4, 9)))}
    (output,) = case.verify(case.emitted(), groups=groups).outputs
    first, second = output.groups
    assert output.sqnr_db is not None and first.sqnr_db is not None
    assert min(output.sqnr_db, first.sqnr_db) > 30.0 and first.collapsed == ""
    assert second.sqnr_db == 0.0 and second.collapsed == "zero" and output.lowest_db == 0.0
    assert (second.axis, second.start, second.stop) == (1, 4, 9)


@pytest.mark.parametrize("change", ["name of an input", "name of an output", "type", "dimension", "one output more"])
def test_a_changed_interface_is_refused(case: Case, change: str) -> None:
    model = case.emitted()
    graph = model.graph
    if change == "name of an input":
        graph.inputs[0].name = "picture"
    elif change == "name of an output":
        graph.outputs[0].name = "scores"
    elif change == "type":
        graph.inputs[0].type = ir.TensorType(ir.DataType.DOUBLE)
    elif change == "dimension":
        graph.inputs[0].shape = ir.Shape([2, 3, 32, 32])
    else:
        graph.outputs.append(next(n for n in graph if n.op_type == "Softmax").outputs[0])
    with pytest.raises(VerificationError, match=r"the model's (in|out)puts changed"):
        case.verify(model)


@pytest.mark.parametrize("change", ["drop", "alter"])
def test_changed_metadata_are_refused(case: Case, change: str) -> None:
    model = case.emitted()
    if change == "drop":
        del model.metadata_props["author"]
    else:
        model.metadata_props["author"] = "somebody else"
    with pytest.raises(VerificationError, match="metadata changed") as caught:
        case.verify(model)
    assert caught.value.where == "key 'author'"


@pytest.mark.parametrize("op_type", ["RoiAlign", "IsNaN", "TopK"])
def test_operators_that_torch_may_lack_are_simulated_too(op_type: str, tmp_path: Path) -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 6, 6), 8)
    if op_type == "RoiAlign":
        regions, pictures = sketch.constant([[0.0, 0.0, 5.0, 5.0]]), sketch.constant([0], np.int64)
        x = sketch.add("RoiAlign", x, regions, pictures, output_height=4, output_width=4)
    elif op_type == "IsNaN":
        x = sketch.add("Where", sketch.add("IsNaN", x), sketch.constant(0.0), x)
    else:
        x, _ = sketch.split("TopK", x, sketch.constant([4], np.int64), outputs=2, axis=1)
    model = sketch.model(sketch.conv(x, 4 if op_type == "TopK" else 8))
    verdict = saved(model, tmp_path / "model.onnx").verify_emitted()
    assert verdict.parity_reference == "a simulation of the plan"
    assert verdict.parity_db is not None and verdict.parity_db > 100.0


def test_the_plan_that_is_verified_is_the_plan_that_was_emitted(case: Case) -> None:
    """A plan with one other grid describes another computation."""
    name, tensor_plan = next((n, t) for n, t in case.planned.plan.tensors.items() if n == "image")
    assert tensor_plan.params is not None
    tensors = {**case.planned.plan.tensors, name: replace(tensor_plan, params=tensor_plan.params.rescaled(0.25))}
    other = replace(case.planned, plan=case.planned.plan.with_ops(tensors, case.planned.plan.ops))
    with pytest.raises(VerificationError, match="does not compute what was planned"):
        Case(case.source, other, case.feeds).verify(case.emitted())


@pytest.mark.parametrize(
    ("signal", "other", "expected"),
    [([1.0, 1.0], [1.0, 1.0], 200.0), ([10.0], [9.0], 20.0), ([0.0], [0.0], 200.0), ([0.0], [1.0], -200.0), ([3.0, 4.0], [3.0, 4.5], 20.0)],
)
def test_sqnr_by_hand(signal: list[float], other: list[float], expected: float) -> None:
    assert sqnr(np.asarray(signal), np.asarray(other)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("parity_db", "quality_db", "broken"),
    [
        (200.0, 31.0, False),
        (40.0, 31.0, False),
        (29.0, 29.5, True),  # as far from the plan as from float: the runtime computes something else
        (17.0, 3.0, False),  # far from both, but much closer to the plan: chaos
        (8.0, 3.0, True),
        (math.nan, 31.0, True),
    ],
)
def test_a_defect_is_told_from_chaos(parity_db: float, quality_db: float, broken: bool) -> None:
    assert parity_is_broken(parity_db, quality_db) is broken
