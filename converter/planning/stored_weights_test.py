"""Weights of layers in float: which are stored in 8 bits, what is written, and what the runtime and the simulation make of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from converter.errors import UsageError
from converter.options import Options
from converter.pipeline import convert
from converter.plan.serialization import plan_to_json
from converter.planning.stored_weights import storable_weights, with_stored_weights
from converter.report import size_advice
from converter.runtime.session import open_session, run_session
from converter.targets import TARGET_NAMES, TARGETS
from converter.targets.costs import form_costs
from converter.testing.models import SaveHybrid
from converter.testing.sketch import Sketch, emitted, feeds_for, parity, plan_for
from converter.verify.quality import sqnr

pytestmark = pytest.mark.usefixtures("few_turns")


def stored(model: ir.Model, integer: tuple[str, ...] = ()) -> Any:
    """The model with some operators in integer, and weights of all others stored."""
    planned = plan_for(model, integer=integer)
    return replace(planned, plan=with_stored_weights(planned.model, planned.plan))


def head(rows: int = 1) -> ir.Model:
    """A convolution, its channels' means, and a linear layer of 64 x 100."""
    sketch = Sketch()
    x = sketch.add("GlobalAveragePool", sketch.conv(sketch.input("x", rows, 3, 8, 8), 3, outputs=64, name="stem"), name="mean")
    return sketch.model(sketch.add("Gemm", sketch.add("Flatten", x, name="flat"), sketch.normal(64, 100), sketch.normal(100), name="head"))


def sizes(model: onnx.ModelProto) -> dict[str, int]:
    """Bytes of the constants of each type."""
    found: dict[str, int] = {}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        found[str(array.dtype)] = found.get(str(array.dtype), 0) + array.nbytes
    return found


def test_codes_and_scales_by_hand() -> None:
    """The largest weight of each output has the code 127, and zero stays zero."""
    weight = np.zeros((32, 40), np.float32)
    weight[0], weight[1], weight[2, :20] = np.linspace(0.5, 2.0, 40), 0.25, 0.125
    sketch = Sketch()
    planned = stored(sketch.model(sketch.add("MatMul", sketch.input("x", 1, 32), sketch.constant(weight), name="layer")))
    (grid,) = planned.plan.stored.values()
    assert grid.axis == 1 and grid.narrow and set(grid.zero_point) == {0}
    assert np.allclose(grid.scale, np.linspace(0.5, 2.0, 40) / 127, rtol=1e-6)
    arrays = {t.name: numpy_helper.to_array(t) for t in emitted(planned).graph.initializer}
    codes = next(a for a in arrays.values() if a.dtype == np.int8)
    assert codes.shape == (32, 40) and (codes[0] == 127).all() and codes[1, 0] == round(0.25 / 0.5 * 127) and not codes[3:].any()


def test_the_runtime_folds_them_once_and_computes_with_the_same_kernels(tmp_path: Path) -> None:
    """So that no inference takes longer. Behind a DequantizeLinear the weights would be made numbers of every time."""
    kernels = {}
    for name, planned in {"float": plan_for(head(), integer=()), "codes": stored(head())}.items():
        open_session(emitted(planned), threads=1, optimised_path=tmp_path / name)
        kernels[name] = [node.op_type for node in onnx.load(tmp_path / name).graph.node]
    assert kernels["codes"] == kernels["float"] and "Gemm" in kernels["float"]


def test_behind_a_dequantizelinear_they_would_not_be_folded(tmp_path: Path) -> None:
    """This is why they are written as a Cast and a Mul."""
    sketch = Sketch()
    codes, scale = sketch.constant(np.ones((16, 8, 3, 3)), np.int8), sketch.constant(np.ones(16))
    weight = sketch.add("DequantizeLinear", codes, scale, axis=0)
    model = sketch.model(sketch.add("Conv", sketch.input("x", 1, 8, 6, 6), weight))
    open_session(ir.to_proto(model), threads=1, optimised_path=tmp_path / "optimised")
    assert "DequantizeLinear" in [node.op_type for node in onnx.load(tmp_path / "optimised").graph.node]


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_by_the_prices_it_would_cost_more_than_the_layer_where_weights_are_used_once(target: str) -> None:
    rows, inner, outer = 1, 1280, 1000
    found = {"node": 1.0, "element": rows * outer, "input": rows * inner, "row": rows, "mac": rows * inner * outer}
    assert TARGETS[target].dequantize(inner * outer) > form_costs("Linear", found, TARGETS[target])[0]


def test_the_file_is_small_and_answers_as_simulated() -> None:
    planned = stored(head())
    plain, small = emitted(plan_for(head(), integer=())), emitted(planned)
    assert sizes(plain) == {"float32": 4 * (64 * 27 + 64 + 64 * 100 + 100)}
    assert sizes(small) == {"int8": 64 * 27 + 64 * 100, "float32": 4 * (64 + 100) + 4 * (64 + 100)}, "biases stay, each output has a scale"
    assert parity(planned, emitted(planned)) >= 120.0
    (feed,) = feeds_for(head(), count=1)
    exact, rounded = (next(iter(run_session(open_session(m), feed).values())) for m in (plain, small))
    assert 30.0 < sqnr(exact, rounded) < 60.0


def test_beside_layers_in_integer() -> None:
    """These have codes of their own; what stays float behind a DQ or in front of a Q is stored as well."""
    planned = stored(head(), integer=("stem", "mean", "flat"))
    assert len(planned.plan.stored) == 1 and parity(planned, emitted(planned)) >= 120.0


@pytest.mark.parametrize(
    ("op_type", "shape", "x", "attributes", "axis"),
    [
        ("Conv", (40, 8, 3, 3), (1, 8, 6, 6), {}, 0),
        ("Conv", (40, 1, 5, 5), (1, 40, 6, 6), {"group": 40}, 0),
        ("ConvTranspose", (8, 40, 3, 3), (1, 8, 6, 6), {}, 1),
        ("Gemm", (40, 48), (2, 48), {"transB": 1}, 0),
        ("Gemm", (48, 40), (2, 48), {}, 1),
        ("MatMul", (3, 48, 40), (3, 2, 48), {}, 2),
    ],
)
def test_the_axis_of_outputs(op_type: str, shape: tuple[int, ...], x: tuple[int, ...], attributes: dict[str, Any], axis: int) -> None:
    sketch = Sketch()
    planned = stored(sketch.model(sketch.add(op_type, sketch.input("x", *x), sketch.normal(*shape), name="layer", **attributes)))
    (grid,) = planned.plan.stored.values()
    assert (grid.axis, len(grid.scale)) == (axis, shape[axis])
    assert parity(planned, emitted(planned)) >= 120.0


def test_a_constant_on_the_left_has_a_scale_for_each_row() -> None:
    sketch = Sketch()
    planned = stored(sketch.model(sketch.add("MatMul", sketch.normal(40, 48), sketch.input("x", 48, 2), name="layer")))
    (grid,) = planned.plan.stored.values()
    assert (grid.axis, len(grid.scale)) == (0, 40) and parity(planned, emitted(planned)) >= 120.0


def test_recurrent_weights() -> None:
    sketch = Sketch()
    weights = [sketch.normal(1, 4 * 24, 16, scale=0.2), sketch.normal(1, 4 * 24, 24, scale=0.2)]
    planned = stored(sketch.model(sketch.add("LSTM", sketch.input("x", 5, 1, 16), *weights, name="layer", hidden_size=24)))
    assert [grid.axis for grid in planned.plan.stored.values()] == [1, 1] and parity(planned, emitted(planned)) >= 120.0


def test_what_is_left_as_it_is() -> None:
    """Few weights, those that something else reads too, what is no weight, and weights too small for a scale."""
    sketch = Sketch()
    x = sketch.input("x", 1, 64)
    few = sketch.add("Gemm", x, sketch.normal(64, 2), name="few")
    shared = sketch.normal(64, 64)
    both = sketch.add("Add", sketch.add("MatMul", x, shared, name="shared"), shared, name="other")
    added = sketch.add("Add", x, sketch.normal(100, 64), name="table")
    tiny = sketch.add("MatMul", x, sketch.normal(64, 64, scale=1e-14), name="tiny")
    planned = stored(sketch.model(few, both, added, tiny))
    assert planned.plan.stored == {}
    assert len(storable_weights(planned.model, planned.plan)) == 2, "the few and the tiny ones could be stored, but are not worth it"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "head.onnx"
    onnx.save(ir.to_proto(head()), path)
    return path


def options(**changes: Any) -> Options:
    return Options(**{"samples": 3, "threads": 1, "exclude": ("Gemm",), **changes})


def test_from_end_to_end_and_through_a_plan(source: Path, tmp_path: Path) -> None:
    plain, small = (convert(source, tmp_path / f"{way}.onnx", options(method="minmax", prefer=way)) for way in ("accuracy", "size"))
    assert plain.plan.stored == {} and small.plan.stored
    assert small.integer_bytes < plain.integer_bytes and small.predicted == plain.predicted
    assert small.verdict is not None and small.verdict.parity_db is not None and small.verdict.parity_db >= 150.0
    (tmp_path / "plan.json").write_text(plan_to_json(small.plan))
    convert(source, tmp_path / "again.onnx", options(plan_in=tmp_path / "plan.json"))
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "size.onnx").read_bytes()


def test_the_report_says_where_the_bytes_are(source: Path, tmp_path: Path) -> None:
    plain, small = (convert(source, tmp_path / f"{way}.onnx", options(method="minmax", prefer=way)) for way in ("accuracy", "size"))
    for report in (plain, small):
        found = report.file_bytes
        assert found is not None and found.total == (tmp_path / report.output).stat().st_size
    assert plain.file_bytes is not None and small.file_bytes is not None
    largest = plain.file_bytes.largest[0]
    assert (largest.bytes, largest.operator, largest.reason) == (4 * 64 * 100, "head", "excluded by the user")
    assert plain.file_bytes.in_float - small.file_bytes.in_float >= 4 * 64 * 100
    assert small.file_bytes.in_8_bits - plain.file_bytes.in_8_bits >= 64 * 100
    saved = plain.integer_bytes - small.integer_bytes
    assert plain.file_bytes.to_save == pytest.approx(saved, rel=0.1) and small.file_bytes.to_save == 0
    assert "--prefer size would save" in size_advice(plain) and size_advice(small) == ""


def test_the_report_says_that_there_is_nothing_to_save(save_hybrid: SaveHybrid) -> None:
    report = convert(save_hybrid(), None, options(method="minmax", prefer="size", exclude=()))
    assert "saves nothing" in size_advice(report)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda stored, name: stored[name].update(axis=1), "scales along axis"),
        (lambda stored, name: stored[name].update(signed=False, zero_point=[9] * len(stored[name]["scale"])), "must be signed"),
        (lambda stored, name: stored.update(absent=stored[name]), "no weight of layers in float"),
    ],
)
def test_plans_that_do_not_fit_are_refused(source: Path, tmp_path: Path, edit: Any, text: str) -> None:
    plan = json.loads(plan_to_json(convert(source, None, options(method="minmax", prefer="size", exclude=("*",)), dry_run=True).plan))
    edit(plan["stored"], next(name for name, grid in plan["stored"].items() if grid["axis"] == 0))
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UsageError, match=text):
        convert(source, tmp_path / "out.onnx", options(plan_in=tmp_path / "plan.json"))
