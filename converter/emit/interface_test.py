"""``--io uint8`` from end to end: pixels go in, codes come out, and the numbers are those of plain integer arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from converter.calibration.preprocess import PRESETS
from converter.errors import UsageError
from converter.load import metadata
from converter.options import Options
from converter.pipeline import convert
from converter.plan.records import Plan
from converter.plan.serialization import plan_from_json
from converter.quantization.output_codes import OUTPUT_CODES, output_grids
from converter.quantization.parameters import QuantParams
from converter.report import Report
from converter.runtime.session import open_session, run_session
from converter.testing.sketch import Sketch

pytestmark = pytest.mark.usefixtures("few_turns")

SPECS = {"unit": ([0.0] * 3, [1.0] * 3), "symmetric": ([0.5] * 3, [0.5] * 3), "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])}
TARGETS = ("arm64", "x86-vnni")
WEIGHTS = np.random.default_rng(3).integers(-127, 128, (4, 3, 3, 3))
WEIGHTS[:, 0, 0, 0] = 127
"""Whole numbers, which as codes have a scale of one."""


def one_layer() -> onnx.ModelProto:
    """A convolution with a border, moved, with the result and a Softmax of its channels for outputs."""
    s = Sketch()
    x = s.add("Conv", s.input("x", 1, 3, 8, 8), s.constant(WEIGHTS), pads=[1] * 4, name="layer")
    moved = s.add("Transpose", x, perm=[0, 2, 3, 1], name="moved")
    return ir.to_proto(s.model(moved, s.add("Softmax", moved, name="scores")))


def converted(model: onnx.ModelProto, output: Path | None = None, **changes: Any) -> Report:
    given = {"samples": 4, "threads": 1, "method": "minmax", "placement": "all", "io": "uint8", "preprocess": "symmetric"}
    return convert(model, output, Options(**{**given, **changes}))


def written(report: Report) -> onnx.ModelProto:
    assert report.model is not None
    return report.model


def properties(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def raw(model: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """What the runtime gives, without any kernel that saturates on x86."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": pixels}), strict=True))


def by_hand(pixels: npt.NDArray[np.uint8], spec: str) -> npt.NDArray[np.float64]:
    """The layer on numbers that are whole multiples of steps in which the mean is whole too; float64 [1, 8, 8, 4]."""
    mean, std = (np.array(numbers).reshape(1, 3, 1, 1) for numbers in SPECS[spec])
    whole = np.floor(255 * mean.min() + 1e-3)
    steps = 255 * mean / whole if mean.any() else np.ones((1, 3, 1, 1))
    codes = np.rint(pixels.astype(np.float32) * (1 / steps).astype(np.float32)).astype(np.int64) - int(whole)
    # weights per output channel, as 8-bit codes of what they are beside the steps
    factors = WEIGHTS * (steps / (255 * std))
    scale = np.abs(factors).max(axis=(1, 2, 3), keepdims=True) / 127
    rounded = np.rint(factors / scale) * scale
    framed = np.pad(codes, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (3, 3), axis=(2, 3))
    result: npt.NDArray[np.float64] = np.einsum("nchwij,ocij->nhwo", windows, rounded)
    return result


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("spec", SPECS)
def test_a_layer_with_a_border_computes_what_integers_do(spec: str, target: str) -> None:
    report = converted(one_layer(), preprocess=spec, target=target)
    pixels = np.random.default_rng(0).integers(60, 200, (1, 3, 8, 8), np.uint8)  # within what was calibrated
    codes, (step, zero) = raw(written(report), pixels)["moved.0"], (lambda g: (g.scale[0], g.zero_point[0]))(grid_of(report, "moved.0"))
    wanted = by_hand(pixels, spec)
    inside = np.abs(wanted) < 100 * step
    assert codes.dtype == (np.int8 if target == "arm64" else np.uint8) and inside.mean() > 0.5
    assert np.abs((codes.astype(float) - zero) * step - wanted)[inside].max() <= 0.502 * step
    assert report.verdict is not None and report.verdict.parity_db == 200.0


def grid_of(report: Report, name: str) -> QuantParams:
    return output_grids(properties(written(report)))[name]


@pytest.mark.parametrize(("spec", "target", "first"), [
    ("unit", "x86-vnni", ["DequantizeLinear", "Conv"]),
    ("unit", "arm64", ["DequantizeLinear", "QuantizeLinear", "DequantizeLinear", "Conv"]),
    ("imagenet", "x86-vnni", ["DequantizeLinear", "QuantizeLinear", "DequantizeLinear", "Conv"]),
])  # fmt: skip
def test_the_first_layer_reads_pixels_without_any_other_operator(spec: str, target: str, first: list[str]) -> None:
    model = written(converted(one_layer(), preprocess=spec, target=target))
    constants = {i.name for i in model.graph.initializer}
    computed = [n for n in model.graph.node if n.input[0] not in constants]
    assert [n.op_type for n in computed][: len(first)] == first and computed[0].input[0] == "x"


def test_the_file_and_the_report_say_what_goes_in_and_comes_out() -> None:
    report = converted(one_layer())
    model, said = written(report), properties(written(report))
    assert [(v.name, v.type.tensor_type.elem_type) for v in (*model.graph.input, *model.graph.output)] == [
        ("x", onnx.TensorProto.UINT8),
        ("moved.0", onnx.TensorProto.INT8),
        ("scores.0", onnx.TensorProto.FLOAT),
    ]
    assert (said[metadata.IO], said[metadata.PREPROCESS]) == ("uint8", "symmetric")
    assert list(output_grids(said)) == ["moved.0"]
    assert report.notes[-1] == (
        "the model takes 'x' as uint8 pixels 0..255; it gives 'moved.0' as int8 codes, whose scale and zero point its metadata hold "
        "and 'scores.0' as before, since no integer operator writes it as codes"
    )


def test_our_sessions_give_numbers_for_codes() -> None:
    report = converted(one_layer())
    pixels = np.full((1, 3, 8, 8), 130, np.uint8)
    grid, codes = grid_of(report, "moved.0"), raw(written(report), pixels)["moved.0"]
    numbers = run_session(open_session(written(report), optimise=False, threads=1), {"x": pixels})["moved.0"]
    np.testing.assert_array_equal(numbers, ((codes.astype(np.int32) - grid.zero_point[0]) * np.float32(grid.scale[0])).astype(np.float32))


def test_without_it_nothing_changes() -> None:
    report = converted(one_layer(), io="float")
    assert not {metadata.IO, OUTPUT_CODES} & properties(written(report)).keys() and report.plan.io == "float"
    assert {v.type.tensor_type.elem_type for v in (*written(report).graph.input, *written(report).graph.output)} == {1}


def test_a_plan_keeps_it_and_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    options = Options(samples=4, threads=1, method="minmax", placement="all", io="uint8", preprocess=PRESETS["imagenet"])
    convert(one_layer(), tmp_path / "a.onnx", options, plan_out=path)
    again = Options(samples=4, threads=1, io="uint8", preprocess=PRESETS["imagenet"], plan_in=path)
    convert(one_layer(), tmp_path / "b.onnx", again)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    plan: Plan = plan_from_json(path.read_text(), path)
    assert plan.io == "uint8"
    with pytest.raises(UsageError, match="the plan is for inputs of uint8 pixels") as caught:
        convert(one_layer(), None, Options(samples=4, threads=1, plan_in=path))
    assert caught.value.hint == "give --io uint8"


def test_a_plan_that_was_edited_keeps_pixels_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    options = Options(samples=4, threads=1, method="minmax", placement="all", io="uint8", preprocess=PRESETS["symmetric"])
    convert(one_layer(), None, options, plan_out=path, dry_run=True)
    text = path.read_text()
    assert '"kind": "fixed"' in text
    path.write_text(text.replace('"kind": "fixed"', '"kind": "measured"'))
    with pytest.raises(UsageError, match="is pixels: its scale is 1 and its zero point -128"):
        convert(one_layer(), None, Options(samples=4, threads=1, io="uint8", preprocess=PRESETS["symmetric"], plan_in=path))


def test_how_pixels_become_numbers_must_be_known() -> None:
    with pytest.raises(UsageError, match="how pixels become the numbers that the model takes is not known"):
        converted(one_layer(), preprocess=None)


@pytest.mark.parametrize("spec", SPECS)
def test_what_stays_float_reads_the_same_numbers(spec: str) -> None:
    report = converted(one_layer(), exclude=("*",), preprocess=spec)
    model = written(report)
    assert {v.type.tensor_type.elem_type for v in model.graph.output} == {onnx.TensorProto.FLOAT}
    assert report.verdict is not None and all(o.sqnr_db is not None and o.sqnr_db > 100 for o in report.verdict.outputs)
