from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
import pytest

from converter.calibration.observer import collect_statistics
from converter.partition.bit_widths import tensor_bits, width_counts
from converter.partition.integer_forms import offer
from converter.plan.records import OpPlan, Plan, TensorPlan
from converter.quantization.bit_widths import BitWidths
from converter.quantization.parameters import QuantParams
from converter.targets import TARGETS
from converter.testing.sketch import Sketch, feeds_for, plan_for


def bits_of(sketch: Sketch, *outputs: str, bits: int = 6, excluded: Collection[str] = ()) -> dict[str, int]:
    """Widths without forks, under the names of nodes."""
    model: ir.Model = sketch.model(*outputs)
    seen = collect_statistics(model, feeds_for(model), threads=1)
    offers = offer(model, seen, TARGETS["arm64"], activation_bits=bits, weight_bits=8, excluded=excluded)
    return {name.removesuffix(".0"): width for name, width in tensor_bits(model, offers, bits).items()}


def image(s: Sketch) -> str:
    return s.input("x", 1, 8, 6, 6)


def test_what_enters_a_layer_or_a_product_is_narrow() -> None:
    s = Sketch()
    first = s.add("Sigmoid", image(s), name="into conv")
    flat = s.add("Sigmoid", s.add("Flatten", s.conv(first, 8, name="conv"), name="flat"), name="into gemm")
    tokens = s.add("Sigmoid", s.input("t", 2, 4, 16), name="into matmul")
    left, right = (s.add("MatMul", tokens, s.normal(16, 16), name=n) for n in ("into product", "other"))
    product = s.add("MatMul", left, s.add("Transpose", right, perm=[0, 2, 1], name="turned"), name="product")
    found = bits_of(s, s.add("Gemm", flat, s.normal(288, 4), name="gemm"), product)
    assert found == {
        "x": 8, "into conv": 6, "conv": 8, "flat": 8, "into gemm": 6, "gemm": 8,
        "t": 8, "into matmul": 6, "into product": 6, "other": 6, "turned": 6, "product": 8,
    }  # fmt: skip


def test_what_enters_nothing_but_integer_or_float_operators_keeps_8_bits() -> None:
    s = Sketch()
    x = s.conv(image(s), 8, name="conv")
    gate = s.add("Sigmoid", x, name="gate")
    y = s.add("Mul", x, gate, name="silu")
    y = s.add("Concat", s.add("HardSwish", y, name="swish"), y, axis=1, name="joined")
    y = s.add("GlobalAveragePool", y, name="pooled")
    found = bits_of(s, s.add("Erf", y, name="erf"))
    assert found == {"x": 6, "conv": 8, "gate": 8, "silu": 8, "swish": 8, "joined": 8, "pooled": 8, "erf": 8}


def test_tensors_that_share_codes_have_one_width() -> None:
    """One reader behind two movements and a factor makes the source narrow, and with it what else is moved from it."""
    s = Sketch()
    source = s.add("Sigmoid", image(s), name="source")
    half = s.add("Mul", source, s.constant(0.5), name="half")
    flat = s.add("Reshape", half, s.constant([8, 36], np.int64), name="flat")
    turned = s.add("Transpose", source, name="turned")
    found = bits_of(s, s.add("MatMul", flat, s.normal(36, 4), name="layer"), s.add("Erf", turned, name="erf"))
    assert {name: found[name] for name in ("source", "half", "flat", "turned", "layer")} == {
        "source": 6, "half": 6, "flat": 6, "turned": 6, "layer": 8,
    }  # fmt: skip


def test_the_outputs_of_a_split_share_its_codes() -> None:
    s = Sketch()
    left, right = s.split("Split", s.add("Sigmoid", image(s), name="source"), outputs=2, axis=1, num_outputs=2, name="split")
    found = bits_of(s, s.conv(left, 4, name="layer"), s.add("Erf", right, name="erf"))
    assert (found["source"], found["split"], found["split.1"]) == (6, 6, 6)


def test_of_an_absorbed_clamp_its_output_counts() -> None:
    s = Sketch()
    x = s.add("Relu", s.conv(image(s), 8, name="inside"), name="relu")
    found = bits_of(s, s.conv(x, 8, name="last"))
    assert (found["inside"], found["relu"], found["last"]) == (8, 6, 8)


def test_layers_that_cannot_run_in_integer_ask_for_nothing() -> None:
    s = Sketch()
    x = s.add("Sigmoid", image(s), name="source")
    assert bits_of(s, s.conv(x, 8, name="layer"), excluded={"layer"})["source"] == 8
    s = Sketch()
    x = s.add("Sigmoid", image(s), name="source")
    resized = s.add("Resize", x, "", s.constant([1, 1, 2, 2]), mode="linear", name="resized")
    found = bits_of(s, s.conv(resized, 8))
    assert (found["source"], found["resized"]) == (8, 6)


def test_a_copy_is_narrow_and_its_original_is_not() -> None:
    s = Sketch()
    x = s.add("Sigmoid", image(s), name="source")
    found = bits_of(s, s.add("Add", x, s.conv(s.add("Identity", x, name="copy"), 8)), bits=5)
    assert (found["source"], found["copy"]) == (8, 5)
    s = Sketch()
    found = bits_of(s, s.add("Erf", s.add("Identity", image(s), name="copy for nobody")))
    assert found["copy for nobody"] == 6, "two grids of 8 bits in a row would be merged"


@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (8, 4), (6, 7)])
def test_constants_of_pointwise_operators_keep_8_bits(bits: tuple[int, int]) -> None:
    s = Sketch()
    x = s.add("Mul", s.add("Add", image(s), s.normal(8, 1, 1), name="add"), s.normal(8, 1, 1), name="mul")
    planned = plan_for(s.model(s.conv(x, 8, name="layer")), bits=bits)
    found = {name: planned.plan.ops[name].constants[1].bits for name in ("add", "mul", "layer")}
    assert found == {"add": 8, "mul": 8, "layer": bits[0]}


def test_the_grid_of_a_sigmoid_is_as_wide_as_its_readers_want() -> None:
    s = Sketch()
    x = image(s)
    into_mul, into_conv = s.add("Mul", x, s.add("Sigmoid", x, name="gate")), s.conv(s.add("Sigmoid", x, name="source"), 8)
    plan = plan_for(s.model(into_mul, into_conv), bits=(8, 5)).plan
    assert plan.tensors["gate.0"].params == QuantParams((2.0**-8,), (-128,), 8, True)
    assert plan.tensors["source.0"].params == QuantParams((2.0**-5,), (-16,), 5, True)


def test_widths_are_counted_where_there_are_codes() -> None:
    narrow, wide = QuantParams((1.0,), (0,), 6), QuantParams((1.0,), (0,), 8)
    weights = QuantParams((1.0,), (0,), 4, True, 0, True)
    tensors = {
        "a": TensorPlan("measured", narrow),
        "b": TensorPlan("shared", narrow, "a"),
        "c": TensorPlan("fixed", wide),
        "d": TensorPlan("float"),
    }
    ops = {
        "conv": OpPlan("Conv", "integer", "codes", {1: weights}),
        "product": OpPlan("MatMul", "integer", "codes"),
        "add": OpPlan("Add", "integer", "codes", {1: wide}),
        "float": OpPlan("Conv", "float"),
    }
    assert width_counts(Plan("mse", BitWidths(4, 6), "arm64", tensors, ops)) == ({6: 2, 8: 1}, {4: 1})
