from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.calibration.observer import collect_statistics
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.forms.registry import PASSING
from converter.graph.queries import relabel_factor
from converter.partition.integer_forms import offer, passes_codes
from converter.targets import TARGETS, Cost, Target
from converter.testing.multiplying import MULTIPLYING
from converter.testing.sketch import Sketch, feeds_for

PRICED = replace(
    TARGETS["arm64"],
    costs={
        "PointwiseConv": Cost({"element": 1.0, "mac": 0.36}, {"element": 1.0, "mac": 0.14}),
        "Sigmoid": Cost({"node": 7.0, "element": 8.0}, {"element": 4.0}),
        "GlobalAveragePool": Cost({"input": 1.9}, {"input": 0.8}),
    },
    quantize_node=0.0, quantize_element=2.75, dequantize_node=0.0, dequantize_element=1.37,
)  # fmt: skip
"""Prices for arithmetic by hand."""


def offers_of(model: ir.Model, target: str | Target = "arm64", **rest: Any) -> dict[str, SupportedForm | UnsupportedForm]:
    seen = collect_statistics(model, feeds_for(model), threads=1)
    bits = {name: rest.pop(name, 8) for name in ("activation_bits", "weight_bits")}
    return offer(model, seen, TARGETS[target] if isinstance(target, str) else target, **bits, **rest)


def last(build: Callable[[Sketch], str], target: str = "arm64") -> SupportedForm | UnsupportedForm:
    """What becomes of the last node of a graph."""
    sketch = Sketch()
    model = sketch.model(build(sketch))
    return offers_of(model, target)[str(list(model.graph)[-1].name)]


def image(s: Sketch, channels: int = 4) -> str:
    return s.input("x", 1, channels, 6, 6)


def computed(s: Sketch, *shape: int) -> str:
    """A tensor that is not constant, of the given shape."""
    return s.add("Expand", s.input(f"seed_{len(s.inputs)}", *[1] * len(shape)), s.constant(shape, np.int64))


REFUSALS: dict[str, tuple[Callable[[Sketch], str], str]] = {
    "conv with computed weights": (lambda s: s.add("Conv", image(s), computed(s, 4, 4, 1, 1)), "its weights are computed"),
    "conv with a computed bias": (lambda s: s.add("Conv", image(s), s.normal(4, 4, 1, 1), computed(s, 4)), "its bias is computed"),
    "conv in three dimensions": (lambda s: s.add("Conv", s.input("x", 1, 2, 4, 4, 4), s.normal(3, 2, 1, 1, 1)), "in 3 dimensions"),
    "transposed conv": (lambda s: s.add("ConvTranspose", image(s), s.normal(4, 2, 2, 2)), "no integer kernel for ConvTranspose"),
    "gemm with computed weights": (lambda s: s.add("Gemm", s.input("x", 3, 4), computed(s, 4, 5)), "its weights are computed"),
    "gemm with a matrix as bias": (
        lambda s: s.add("Gemm", s.input("x", 3, 4), s.normal(4, 5), s.normal(3, 5)),
        "not one number per output",
    ),
    "gemm with a scalar bias": (lambda s: s.add("Gemm", s.input("x", 3, 4), s.normal(4, 5), s.constant(1.0)), "not one number per output"),
    "gemm with a computed bias": (lambda s: s.add("Gemm", s.input("x", 3, 4), s.normal(4, 5), computed(s, 5)), "its bias is computed"),
    "gemm with alpha": (lambda s: s.add("Gemm", s.input("x", 3, 4), s.normal(4, 5), alpha=0.5), "no alpha, beta or transposed input"),
    "gemm with beta": (lambda s: s.add("Gemm", s.input("x", 3, 4), s.normal(4, 5), s.normal(5), beta=2.0), "no alpha, beta"),
    "gemm with transposed input": (lambda s: s.add("Gemm", s.input("x", 4, 3), s.normal(4, 5), transA=1), "transposed input"),
    "matmul with a vector": (lambda s: s.add("MatMul", s.input("x", 3, 4), s.normal(4)), "an operand is not a matrix"),
    "matmul of two vectors": (lambda s: s.add("MatMul", s.input("x", 4), s.input("y", 4)), "not a matrix"),
    "gather from a table": (
        lambda s: s.add("Gather", s.normal(9, 4), s.add("Cast", s.input("x", 3), to=7)),
        "none of its float inputs is computed",
    ),
    "split with an idle output": (
        lambda s: s.split("Split", image(s), outputs=2, axis=1, num_outputs=2)[0],
        "one of its outputs is not used",
    ),
    "linear resize": (
        lambda s: s.add("Resize", image(s), "", s.constant([1, 1, 2, 2]), mode="linear"),
        "interpolating Resize is not faster",
    ),
    "average pool": (lambda s: s.add("AveragePool", image(s), kernel_shape=[3, 3]), "no integer form of"),
    "max pool": (lambda s: s.add("MaxPool", image(s), kernel_shape=[3, 3]), "no integer form of"),
    "averages of nearly nothing": (
        lambda s: s.add("GlobalAveragePool", s.add("InstanceNormalization", image(s), s.constant(np.ones(4)), s.constant(np.zeros(4)))),
        "too small beside its inputs",
    ),
    "gelu of what is far below zero": (lambda s: s.add("Gelu", s.add("Add", image(s), s.constant(-5.0))), "not as close to it"),
    "softmax": (lambda s: s.add("Softmax", image(s)), "times the float one"),
    "erf": (lambda s: s.add("Erf", image(s)), "no integer kernel for Erf"),
    "clip with computed limits": (
        lambda s: s.add("Clip", s.conv(image(s), 4), s.add("ReduceMin", s.input("low", 2), keepdims=0)),
        "its limits are computed",
    ),
    "relu behind a layer in float": (
        lambda s: s.add("Relu", s.add("ConvTranspose", image(s), s.normal(4, 4, 2, 2))),
        "it becomes part of the float operator before it",
    ),
    "pad with large numbers": (
        lambda s: s.add("Pad", image(s), s.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), s.constant(-1e9)),
        "numbers that need not lie on the grid",
    ),
    "a mask": (lambda s: s.add("Add", image(s), s.constant(np.triu(np.full((6, 6), -1e9)))), "no step of the grid would be left"),
}


@pytest.mark.parametrize(("build", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_what_the_runtime_would_not_run_in_integer_is_refused_with_the_reason(build: Callable[[Sketch], str], reason: str) -> None:
    entry = last(build)
    assert isinstance(entry, UnsupportedForm)
    assert reason in entry.reason


@pytest.mark.parametrize("who", ["an operator", "the model's output"])
def test_a_relu_whose_input_others_read_too_clips_codes(who: str) -> None:
    sketch = Sketch()
    x = sketch.conv(image(sketch), 4)
    other = sketch.add("Sigmoid", x) if who == "an operator" else x
    entry = offers_of(sketch.model(sketch.add("Relu", x, name="relu"), other))["relu"]
    assert isinstance(entry, SupportedForm) and entry.form == "clip"


OFFERED: dict[str, tuple[Callable[[Sketch], str], str]] = {
    "conv": (lambda s: s.conv(image(s), 4), "weighted"),
    "conv in one dimension": (lambda s: s.add("Conv", s.input("x", 1, 4, 9), s.normal(4, 4, 3)), "weighted"),
    "gemm": (lambda s: s.add("Gemm", s.input("x", 3, 4), s.normal(4, 5), s.normal(5)), "weighted"),
    "matmul with a matrix": (lambda s: s.add("MatMul", s.input("x", 2, 3, 4), s.normal(4, 5)), "weighted"),
    "matmul of two": (lambda s: s.add("MatMul", s.input("x", 3, 4), s.input("y", 4, 5)), "product"),
    "matmul with a stack of matrices": (lambda s: s.add("MatMul", s.input("x", 2, 3, 4), s.normal(2, 4, 5)), "product"),
    "matmul with a constant on the left": (lambda s: s.add("MatMul", s.normal(3, 4), s.input("x", 4, 5)), "product"),
    "add": (lambda s: s.add("Add", s.input("x", 3, 4), s.input("y", 4)), "pointwise"),
    "mul by a channel vector": (lambda s: s.add("Mul", image(s), s.normal(4, 1, 1)), "pointwise"),
    "mul by a positive number": (lambda s: s.add("Mul", image(s), s.constant(0.5)), "relabel"),
    "mul by a positive number in front": (lambda s: s.add("Mul", s.constant([3.0]), image(s)), "relabel"),
    "mul by a negative number": (lambda s: s.add("Mul", image(s), s.constant(-0.5)), "pointwise"),
    "mul by zero": (lambda s: s.add("Mul", image(s), s.constant(0.0)), "pointwise"),
    "mul by a tiny number": (lambda s: s.add("Mul", image(s), s.constant(1e-9)), "pointwise"),
    "mul by a huge number": (lambda s: s.add("Mul", image(s), s.constant(1e9)), "pointwise"),
    "mul that adds a dimension": (lambda s: s.add("Mul", s.input("x", 4), s.constant([[2.0]])), "pointwise"),
    "an offset": (lambda s: s.add("Add", image(s), s.constant(-5.0)), "pointwise"),
    "concat with a constant": (lambda s: s.add("Concat", image(s), s.normal(1, 1, 6, 6), axis=1), "concat"),
    "pad with zeros": (lambda s: s.add("Pad", image(s), s.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)), "pad"),
    "relu on an input": (lambda s: s.add("Relu", image(s)), "clip"),
    "relu behind a float operator": (lambda s: s.add("Relu", s.add("Erf", image(s))), "clip"),
    "relu behind a movement": (lambda s: s.add("Relu", s.add("Transpose", image(s))), "clip"),
    "relu behind a conv": (lambda s: s.add("Relu", s.conv(image(s), 4)), "absorbed"),
    "clip without limits": (lambda s: s.add("Clip", s.conv(image(s), 4)), "absorbed"),
    "clip with one limit": (lambda s: s.add("Clip", s.conv(image(s), 4), "", s.constant(6.0)), "absorbed"),
    "hardswish": (lambda s: s.add("HardSwish", image(s)), "hardswish"),
    "gelu": (lambda s: s.add("Gelu", image(s)), "gelu"),
    "concat": (lambda s: s.add("Concat", image(s), s.input("y", 1, 2, 6, 6), axis=1), "concat"),
    "nearest resize": (lambda s: s.add("Resize", image(s), "", s.constant([1, 1, 2, 2]), mode="nearest"), "movement"),
    "reshape": (lambda s: s.add("Reshape", image(s), s.constant([4, 36], np.int64)), "movement"),
}


@pytest.mark.parametrize(("build", "form"), OFFERED.values(), ids=OFFERED)
def test_what_the_runtime_runs_in_integer_is_offered(build: Callable[[Sketch], str], form: str) -> None:
    entry = last(build)
    assert isinstance(entry, SupportedForm)
    assert entry.form == form


@pytest.mark.parametrize(
    ("target", "group", "outputs", "asked", "bits"),
    [("arm64", 1, 8, 8, 8), ("x86", 1, 8, 8, 7), ("x86", 8, 8, 8, 8), ("x86", 8, 16, 8, 7), ("x86", 1, 8, 4, 4), ("x86", 8, 8, 6, 6)],
)
def test_weights_get_no_more_bits_than_the_target_has(target: str, group: int, outputs: int, asked: int, bits: int) -> None:
    sketch = Sketch()
    model = sketch.model(sketch.conv(image(sketch, 8), 8, group=group, outputs=outputs, name="conv"))
    entry = offers_of(model, target, weight_bits=asked)["conv"]
    assert isinstance(entry, SupportedForm)
    assert (entry.constants[1].bits, entry.constants[1].axis, entry.constants[1].signed) == (bits, 0, None)


@pytest.mark.parametrize(("activation_bits", "bits"), [(8, (7, 7, 8)), (7, (8, 8, 8)), (6, (8, 8, 8)), (4, (8, 8, 8))])
def test_beside_narrow_activations_weights_can_be_wider(activation_bits: int, bits: tuple[int, int, int]) -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.conv(image(sketch, 8), 8, name="dense"), 8, group=8, name="depthwise")
    model = sketch.model(sketch.add("MatMul", x, sketch.normal(6, 5), name="linear"))
    entries = offers_of(model, "x86", activation_bits=activation_bits)
    assert [entries[n].constants[1].bits for n in ("dense", "linear", "depthwise")] == list(bits)  # type: ignore[union-attr]


def test_a_copy_is_offered_where_its_grid_is_narrow() -> None:
    sketch = Sketch()
    x = image(sketch)
    model = sketch.model(sketch.add("Erf", sketch.add("Identity", x, name="copy")), sketch.add("Identity", x, name="output"))
    narrow = offers_of(model, PRICED, activation_bits=7)
    copy = narrow["copy"]
    assert isinstance(copy, SupportedForm) and (copy.form, copy.float_cost) == ("requantize", 0.0)
    assert copy.integer_cost == pytest.approx(144 * (2.75 + 1.37))
    assert isinstance(narrow["output"], UnsupportedForm)
    refused = offers_of(model)["copy"]
    assert isinstance(refused, UnsupportedForm) and "a copy needs no kernel" in refused.reason


PASSED_ON: dict[str, tuple[Callable[[Sketch], str], bool]] = {
    "transpose": (lambda s: s.add("Transpose", image(s)), True),
    "nearest resize": (lambda s: s.add("Resize", image(s), "", s.constant([1, 1, 2, 2]), mode="nearest"), True),
    "linear resize": (lambda s: s.add("Resize", image(s), "", s.constant([1, 1, 2, 2]), mode="linear"), False),
    "positive factor": (lambda s: s.add("Mul", image(s), s.constant(0.5)), True),
    "negative factor": (lambda s: s.add("Mul", image(s), s.constant(-0.5)), False),
    "split with an idle output": (lambda s: s.split("Split", image(s), outputs=2, axis=1, num_outputs=2)[0], False),
    "sigmoid": (lambda s: s.add("Sigmoid", image(s)), False),
}


@pytest.mark.parametrize(("build", "passes"), PASSED_ON.values(), ids=PASSED_ON)
def test_who_passes_codes_on(build: Callable[[Sketch], str], passes: bool) -> None:
    sketch = Sketch()
    (node,) = sketch.model(build(sketch)).graph
    assert passes_codes(node) == passes
    entry = offers_of(sketch.model(str(node.outputs[0].name)))[str(node.name)]
    assert (isinstance(entry, SupportedForm) and entry.form in PASSING) == passes


@pytest.mark.parametrize(("transposed", "axis"), [(0, 1), (1, 0)])
def test_the_channels_of_a_gemm_are_its_outputs(transposed: int, axis: int) -> None:
    entry = last(lambda s: s.add("Gemm", s.input("x", 3, 4), s.normal(*((5, 4) if transposed else (4, 5))), transB=transposed))
    assert isinstance(entry, SupportedForm) and entry.may_write_float
    assert entry.constants[1].axis == axis
    assert entry.constants[1].rows().shape == (5, 4)


def test_multiply_accumulates_by_hand() -> None:
    sketch = Sketch()
    x = image(sketch, 8)
    grouped = sketch.conv(x, 8, group=2, outputs=12, name="grouped")  # 12 x 6 x 6 outputs of 4 x 3 x 3 products
    up = sketch.add("ConvTranspose", x, sketch.normal(8, 2, 2, 2), strides=[2, 2], name="up")  # 8 x 6 x 6 inputs into 2 x 2 x 2
    tokens = sketch.add("Reshape", grouped, sketch.constant([1, 36, 12], np.int64))
    linear = sketch.add("MatMul", tokens, sketch.normal(12, 5), name="linear")
    product = sketch.add("MatMul", linear, sketch.add("Transpose", linear, perm=[0, 2, 1]), name="product")
    found = offers_of(sketch.model(up, product))
    assert {name: found[name].macs for name in ("grouped", "up", "linear", "product")} == {
        "grouped": 12 * 36 * 36, "up": 8 * 36 * 8, "linear": 36 * 5 * 12, "product": 36 * 36 * 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("einsum with weights", "no integer kernel for Einsum"),
        ("LSTM", "no integer kernel for LSTM"),
        ("transposed, with borders cut off", "no integer kernel for ConvTranspose"),
        ("convolution with computed weights", "its weights are computed"),
    ],
)
def test_what_multiplies_and_stays_float_is_counted(case: str, reason: str) -> None:
    model, macs = MULTIPLYING[case]()
    entry = offers_of(model)["it"]
    assert isinstance(entry, UnsupportedForm)
    assert (entry.macs, reason in entry.reason) == (macs, True)


def test_costs_by_hand() -> None:
    sketch = Sketch()
    x = sketch.conv(image(sketch, 4), 4, size=1, name="conv")
    model = sketch.model(sketch.add("GlobalAveragePool", sketch.add("Sigmoid", x, name="sigmoid"), name="pool"))
    found = offers_of(model, PRICED)
    entries = {name: entry for name, entry in found.items() if isinstance(entry, SupportedForm)}
    assert entries["conv"].float_cost == pytest.approx(144 * 1.0 + 576 * 0.36)
    assert entries["conv"].integer_cost == pytest.approx(144 * 1.0 + 576 * 0.14)
    assert (entries["sigmoid"].float_cost, entries["sigmoid"].integer_cost) == (7.0 + 144 * 8.0, 144 * 4.0)
    assert (entries["pool"].float_cost, entries["pool"].integer_cost) == pytest.approx((144 * 1.9, 144 * 0.8))


def test_excluded_operators_are_refused() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.conv(image(sketch), 4, name="conv"))
    assert offers_of(model, excluded={"conv"})["conv"] == UnsupportedForm("excluded by the user", 4 * 36 * 36, final=True)


def test_operators_on_integers_and_constants_are_no_ones_business() -> None:
    sketch = Sketch()
    x = image(sketch)
    shape = sketch.add("Shape", x, name="shape")
    model = sketch.model(sketch.add("Reshape", x, shape, name="same"))
    assert set(offers_of(model)) == {"same"}


def test_the_factor_of_a_relabelling() -> None:
    sketch = Sketch()
    x = image(sketch)
    outputs = [sketch.add("Mul", x, sketch.constant(f), name=f"by {f}") for f in (0.5, -1.0, 0.0, 1e30)]
    model = sketch.model(*outputs, sketch.add("Mul", x, x, name="square"))
    assert {n.name: relabel_factor(n) for n in model.graph} == {
        "by 0.5": 0.5, "by -1.0": None, "by 0.0": None, "by 1e+30": None, "square": None,
    }  # fmt: skip


def test_what_the_target_has_no_integer_kernel_for_stays_float() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.conv(sketch.input("x", 1, 8, 8, 8), 8, name="layer"))
    costs = dict(TARGETS["arm64"].costs)
    target = replace(TARGETS["arm64"], costs=costs | {"Conv": Cost(costs["Conv"].float)})
    seen = collect_statistics(model, feeds_for(model), threads=1)
    (entry,) = offer(model, seen, target, activation_bits=8, weight_bits=8).values()
    assert entry == UnsupportedForm("the target has no integer kernel for Conv", 8 * 64 * 72)


def test_nobody_reads_or_writes_codes_of_what_is_not_finite() -> None:
    """A mask of minus infinity, and the sum behind it, stay float with all who touch them; what is beside them does not."""
    sketch = Sketch()
    scores = sketch.add("MatMul", image(sketch), sketch.normal(6, 6), name="layer")
    masked = sketch.add("Add", scores, sketch.constant(np.triu(np.full((6, 6), -np.inf), 1)), name="masked")
    model = sketch.model(sketch.add("MatMul", sketch.add("Softmax", masked), scores, name="product"))
    found = offers_of(model)
    assert isinstance(found["layer"], SupportedForm) and isinstance(found["product"], SupportedForm)
    assert found["masked"] == UnsupportedForm("of a tensor that it reads or writes, not all of its numbers are finite", final=True)


def test_what_is_divided_by_must_not_become_zero_on_a_grid() -> None:
    """A small number keeps a variance from being zero; eight bits over the variance's range would round it away."""
    sketch = Sketch()
    x = image(sketch, 4)
    mean = sketch.add("GlobalAveragePool", sketch.add("Mul", x, x), name="mean")
    guarded = sketch.add("Add", sketch.add("Relu", sketch.add("Sub", mean, sketch.constant(0.9))), sketch.constant(1e-6), name="guarded")
    plain = sketch.add("Add", mean, sketch.constant(100.0), name="plain")
    model = sketch.model(*(sketch.add("Div", x, sketch.add("Identity", y)) for y in (guarded, plain)), sketch.add("Div", x, guarded))
    found = offers_of(model)
    assert isinstance(found["guarded"], UnsupportedForm) and found["guarded"].final and "become zero" in found["guarded"].reason
    assert isinstance(found["plain"], SupportedForm)


def test_a_guard_stays_that_the_samples_did_not_need() -> None:
    """No sample comes near to zero, but others may."""
    sketch = Sketch()
    x = image(sketch, 4)
    outputs = []
    for name, guard in (("tiny", 1e-6), ("ordinary", 0.5)):
        length = sketch.add("Add", sketch.add("ReduceL2", x, sketch.constant([1], np.int64)), sketch.constant(guard), name=name)
        outputs.append(sketch.add("Div", x, sketch.add("Sqrt", length, name=f"root of {name}")))
    found = offers_of(sketch.model(*outputs))
    assert isinstance(found["tiny"], UnsupportedForm) and found["tiny"].final and isinstance(found["ordinary"], SupportedForm)
    refusals = {name: found[f"root of {name}"] for name in ("tiny", "ordinary")}
    assert {name: isinstance(entry, UnsupportedForm) and entry.final for name, entry in refusals.items()} == {
        "tiny": True,
        "ordinary": False,
    }


@pytest.mark.parametrize(("exponent", "refused"), [(-0.5, True), (0.5, True), (-1.0, True), (2.0, False), (3.0, False)])
def test_whole_powers_take_zero_as_any_other_number(exponent: float, refused: bool) -> None:
    sketch = Sketch()
    x = sketch.add("Add", sketch.add("Relu", image(sketch, 4)), sketch.constant(1e-6), name="sum")
    found = offers_of(sketch.model(sketch.add("Pow", x, sketch.constant(exponent))))
    assert isinstance(found["sum"], UnsupportedForm) == refused


@pytest.mark.parametrize("op_type", ["Conv", "MatMul"])
def test_weights_that_no_scale_is_small_enough_for_stay_float_where_they_count(op_type: str) -> None:
    """Behind a layer of huge outputs; a channel that is as good as dead beside the others is rounded away."""
    sketch = Sketch()
    tiny = 1e-15 * np.random.default_rng(0).standard_normal((6, 6, *([1, 1] if op_type == "Conv" else [])))
    dead = np.concatenate([tiny[:1] * 1e15, tiny[1:]]) if op_type == "Conv" else np.concatenate([tiny[:, :1] * 1e15, tiny[:, 1:]], 1)
    x = image(sketch, 6)
    huge = sketch.add("Mul", x, sketch.constant(1e15))
    outputs = [
        sketch.add(op_type, huge, sketch.constant(tiny), name="counts"),
        sketch.add(op_type, x, sketch.constant(dead), name="dead"),
    ]
    found = offers_of(sketch.model(*outputs))
    assert isinstance(found["dead"], SupportedForm)
    assert isinstance(found["counts"], UnsupportedForm) and "too small for any scale" in found["counts"].reason


def test_numbers_that_no_scale_is_small_enough_for_stay_float() -> None:
    sketch = Sketch()
    x = sketch.add("Mul", image(sketch), sketch.constant(1e-18), name="tiny")
    found = offers_of(sketch.model(sketch.add("Mul", sketch.add("Add", x, x, name="sum"), sketch.constant(1e18))))
    assert isinstance(found["sum"], UnsupportedForm) and found["sum"].final
