from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from converter.canonicalise.axes import shield_resizes
from converter.canonicalise.tidy import tidy_spellings
from converter.options import Options
from converter.pipeline import convert
from converter.testing.models import make_model
from converter.testing.rewrites import Draft, op_types, rewrite, weights
from converter.torch_backend.ops import known

AXES = [[2, 3], [-2, -1], [3, 2], [-1], [1, 2], [0, 1, 2, 3], [3, 0, 2, 1]]


def completed(draft: Draft, output: str) -> onnx.ModelProto:
    """The rewritten model, which gives the same numbers and names no axes."""
    result, changed = rewrite(tidy_spellings, draft.model(output), {"n": 2, "h": 7, "w": 5})
    assert changed
    for node in result.graph.node:
        assert "axes" not in {a.name for a in node.attribute}
        assert node.op_type != "Pad" or len(node.input) <= 3
        assert known(node.op_type)
    return result


def ints(*values: int) -> Any:
    return np.asarray(values, np.int64)


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize("shape", [(2, 4, 7, 5), ("n", 4, "h", "w")], ids=str)
def test_case_1_pads_are_completed(axes: list[int], mode: str, shape: tuple[Any, ...]) -> None:
    draft = Draft(x=shape)
    pads = ints(*(a % 2 for a in range(1, 1 + len(axes))), *[1] * len(axes))
    value = -1.5 if mode == "constant" else None
    result = completed(draft, draft.add("Pad", "x", pads, value, ints(*axes), mode=mode))
    assert op_types(result) == ["Pad"]


def test_case_1_pads_that_are_computed() -> None:
    """To a multiple of 8, as transformers with windows pad."""
    draft = Draft(x=("n", 4, "h", "w"))
    rest = draft.add("Mod", draft.add("Neg", draft.add("Shape", "x", start=2)), ints(8))
    output = draft.add("Pad", "x", draft.add("Concat", ints(0, 0), rest, axis=0), None, ints(2, 3))
    completed(draft, output)


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("shape", [(2, 4, 7, 5), ("n", 4, "h", "w"), ("n", 4, 7, 5)], ids=str)
@pytest.mark.parametrize("given", ["sizes", "scales"])
@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_cases_2_and_3_sizes_and_scales_are_completed(axes: list[int], shape: tuple[Any, ...], given: str, policy: str) -> None:
    draft = Draft(x=shape)
    present = [(2, 4, 7, 5)[a] for a in axes]
    scales = [1.0 if a % 4 < 2 else 1.0 + 0.6 * (a % 2) for a in axes]
    if given == "scales":
        output = draft.add("Resize", "x", None, np.asarray(scales, np.float32), axes=axes, mode="nearest")
    else:
        sizes = ints(*[round(n * s) for n, s in zip(present, scales, strict=True)])
        output = draft.add("Resize", "x", None, None, sizes, axes=axes, mode="nearest", keep_aspect_ratio_policy=policy)
    result, changed = rewrite(tidy_spellings, draft.model(output), {"n": 2, "h": 7, "w": 5})
    named = [n for n in result.graph.node if n.op_type == "Resize" and any(a.name == "axes" for a in n.attribute)]
    if given == "scales" or policy == "stretch" or len(axes) == 4:
        assert changed
        assert not named
    else:
        assert bool(changed) != bool(named)


@pytest.mark.parametrize("attrs", [{"mode": "linear"}, {"mode": "cubic"}, {"mode": "linear", "antialias": 1}, {"mode": "nearest"}], ids=str)
@pytest.mark.parametrize("sizes", [(6, 7), (9, 3), (14, 10)], ids=str)
@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric"])
def test_case_2_every_way_to_interpolate_keeps_its_numbers(attrs: dict[str, Any], sizes: tuple[int, int], coordinates: str) -> None:
    for shape in ((2, 4, 7, 5), ("n", 4, "h", "w")):
        draft = Draft(x=shape)
        output = draft.add("Resize", "x", None, None, ints(*sizes), axes=[2, 3], coordinate_transformation_mode=coordinates, **attrs)
        completed(draft, output)


def test_case_2_a_region_is_completed_too() -> None:
    draft = Draft(x=(2, 4, 7, 5))
    region = np.asarray([0.1, 0.2, 0.8, 0.9], np.float32)
    attrs: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", "axes": [2, 3]}
    completed(draft, draft.add("Resize", "x", region, None, ints(6, 7), **attrs))


def test_case_2_sizes_that_are_computed() -> None:
    draft = Draft(x=("n", 4, "h", "w"), other=("n", 3, "a", "b"))
    completed(draft, draft.add("Resize", "x", None, None, draft.add("Shape", "other", start=2), axes=[2, 3], mode="linear"))


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
@pytest.mark.parametrize("sizes", [(6, 7), (14, 15), (3, 3), (11, 11), (5, 4)], ids=str)
def test_cases_3_and_5_one_factor_for_height_and_width(policy: str, mode: str, sizes: tuple[int, int]) -> None:
    def edit(model: ir.Model) -> list[str]:
        return tidy_spellings(model) + shield_resizes(model)

    for shape in ((2, 4, 7, 5), ("n", 4, "h", "w")):
        draft = Draft(x=shape)
        output = draft.add("Resize", "x", None, None, ints(*sizes), axes=[2, 3], mode=mode, keep_aspect_ratio_policy=policy)
        result, changed = rewrite(edit, draft.model(output), {"n": 2, "h": 7, "w": 5})
        assert changed
        assert op_types(result)[-1] in ("Resize", "Reshape")
        resize = next(n for n in result.graph.node if n.op_type == "Resize")
        if op_types(result)[-1] == "Resize":
            assert not {"axes", "keep_aspect_ratio_policy"} & {a.name for a in resize.attribute}


@pytest.mark.parametrize("shape", [(2, 4, 7, 5), ("n", 4, "h", "w"), ("n", 4, 7, 5)], ids=str)
@pytest.mark.parametrize("given", ["sizes", "scales", "axes"])
def test_case_5_cubic_interpolation_stands_between_reshapes(shape: tuple[Any, ...], given: str) -> None:
    draft = Draft(x=shape)
    if given == "scales":
        output = draft.add("Resize", "x", None, np.asarray([1, 1, 0.6, 0.7], np.float32), mode="cubic")
    elif given == "sizes":
        leading = draft.add("Shape", "x", end=2)
        output = draft.add("Resize", "x", None, None, draft.add("Concat", leading, ints(6, 4), axis=0), mode="cubic")
    else:
        output = draft.add("Resize", "x", None, None, ints(6, 4), axes=[2, 3], mode="cubic")
    result, changed = rewrite(shield_resizes, draft.model(output), {"n": 2, "h": 7, "w": 5})
    assert changed == [output]
    assert [t for t in op_types(result) if t in ("Reshape", "Resize")] == ["Reshape", "Resize", "Reshape"]
    assert rewrite(shield_resizes, result, {"n": 2, "h": 7, "w": 5})[1] == []


def test_case_5_other_interpolations_stay() -> None:
    draft = Draft(x=(2, 4, 7, 5))
    outputs = [draft.add("Resize", "x", None, np.asarray([1, 1, 0.6, 0.7], np.float32), mode=mode) for mode in ("linear", "nearest")]
    assert rewrite(shield_resizes, draft.model(*outputs))[1] == []


@pytest.mark.parametrize("sizes", [(4, 9), (9, 4), (7, 5), (3, 2), (10, 12)], ids=str)
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]], ids=str)
def test_case_4_crops_and_pads_around_the_centre(sizes: tuple[int, int], axes: list[int]) -> None:
    draft = Draft(x=("n", 4, 7, 5))
    result = completed(draft, draft.add("CenterCropPad", "x", ints(*sizes), axes=axes))
    assert op_types(result) == ["Slice", "Pad"]
    assert [d.dim_value for d in result.graph.output[0].type.tensor_type.shape.dim][2:] == list(sizes if axes == [2, 3] else sizes[::-1])


def test_case_4_all_axes() -> None:
    draft = Draft(x=(2, 4, 7, 5))
    completed(draft, draft.add("CenterCropPad", "x", ints(1, 5, 8, 4)))


# What has to be left alone.


@pytest.mark.parametrize("open_rank", [True, False])
def test_axes_that_are_computed_or_of_an_open_rank_stay(open_rank: bool) -> None:
    model = make_model(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Pad", ["r", "pads", "", "axes"], ["y"])],
        [("x", 1, None if open_rank else [2, 4, 7, 5])] + ([] if open_rank else [("axes", 7, [1])]),
        [("y", 1, None)],
        initializers={"pads": ints(1, 1), **({"axes": ints(-1)} if open_rank else {})},
        opset=20,
    )
    assert tidy_spellings(ir.from_proto(model)) == []


@pytest.mark.parametrize(
    ("op_type", "operands", "attrs"), [("Pad", [ints(0, 0, 1, 1, 0, 0, 1, 1)], {}), ("Resize", [None, None, ints(2, 4, 6, 6)], {})]
)
def test_what_is_complete_stays(op_type: str, operands: list[Any], attrs: dict[str, Any]) -> None:
    draft = Draft(x=(2, 4, 7, 5))
    assert rewrite(tidy_spellings, draft.model(draft.add(op_type, "x", *operands, **attrs)))[1] == []


# Between integer convolutions, where the runtime puts channels last.

MIDDLE: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "pad": ("Pad", [ints(1, 2, 1, 0), None, ints(2, 3)], {}),
    "pad from the end": ("Pad", [ints(1, 1), None, ints(-1)], {"mode": "reflect"}),
    "sizes": ("Resize", [None, None, ints(6, 7)], {"axes": [2, 3], "mode": "linear"}),
    "scales": ("Resize", [None, np.asarray([0.6, 0.7], np.float32)], {"axes": [-2, -1], "mode": "linear", "antialias": 1}),
    "aspect ratio": ("Resize", [None, None, ints(7, 9)], {"axes": [3, 2], "keep_aspect_ratio_policy": "not_larger", "mode": "linear"}),
    "rounded up": ("Resize", [None, None, ints(5, 9)], {"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger", "mode": "linear"}),
    "cubic": ("Resize", [None, np.asarray([1, 1, 0.6, 0.7], np.float32)], {"mode": "cubic"}),
    "crop and pad": ("CenterCropPad", [ints(6, 14)], {"axes": [2, 3]}),
}


@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize("name", MIDDLE)
@pytest.mark.usefixtures("few_turns")
def test_what_stands_between_integer_convolutions_runs(name: str, batch: int | str, tmp_path: Path) -> None:
    op_type, operands, attrs = MIDDLE[name]
    draft = Draft(x=(batch, 3, 9, 11))
    x = draft.add("Relu", draft.add("Conv", "x", weights(8, 3, 3, 3), pads=[1] * 4))
    x = draft.add("Relu", draft.add("Conv", draft.add(op_type, x, *operands, **attrs), weights(8, 8, 3, 3), pads=[1] * 4))
    model = draft.model(draft.add("Conv", x, weights(8, 8, 3, 3, seed=1), pads=[1] * 4))
    onnx.save(model, tmp_path / "in.onnx")
    np.savez(tmp_path / "calib.npz", x=weights(6, 3, 9, 11))
    options = Options(calib=tmp_path / "calib.npz", method="minmax", samples=4, threads=1, placement="all")
    report = convert(tmp_path / "in.onnx", tmp_path / "out.onnx", options)
    assert report.verdict is not None
    assert report.verdict.integer_coverage.coverage == 1.0
    assert (report.verdict.outputs[0].sqnr_db or 0.0) > 30
    assert (report.verdict.parity_db or 0.0) > 60
