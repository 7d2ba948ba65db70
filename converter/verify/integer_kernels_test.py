"""Every operator form, emitted and run: the runtime uses the integer kernels meant, and agrees with the simulation to the code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.runtime.session import open_session, run_session
from converter.testing.sketch import TARGET_NAMES, Sketch, emitted, feeds_for, kernels_of, parity, plan_for

Build = Callable[[Sketch], tuple[str, ...]]
EXACT_DB = 200.0

targets = pytest.mark.parametrize("target", TARGET_NAMES)


def image(s: Sketch, name: str = "x", channels: int = 8) -> str:
    return s.input(name, 1, channels, 10, 10)


def resized(s: Sketch, mode: str) -> tuple[str, ...]:
    x = s.add("Resize", s.conv(image(s), 8), "", s.constant([1, 1, 2, 2]), mode=mode, coordinate_transformation_mode="half_pixel")
    return (s.conv(x, 8),)


def through(s: Sketch, op_type: str, *operands: str, **attributes: Any) -> tuple[str, ...]:
    return (s.add("Sigmoid", s.add(op_type, s.add("Sigmoid", image(s)), *operands, **attributes)),)


def around(s: Sketch, op_type: str, *operands: str, **attributes: Any) -> tuple[str, ...]:
    return (s.conv(s.add(op_type, s.conv(image(s), 8), *operands, **attributes), 8),)


def split_in(s: Sketch, outputs: int) -> tuple[str, ...]:
    parts = s.split("Split", s.conv(image(s), 8), outputs=outputs, axis=1, num_outputs=outputs)
    return tuple(s.conv(p, 8 // outputs) for p in parts)


def residual(s: Sketch) -> tuple[str, ...]:
    x = s.conv(image(s), 8)
    y = s.conv(s.silu(x), 8)
    return (s.add("Add", s.add("Add", x, y), s.add("Mul", x, y)),)


def outputs_that_are_read(s: Sketch) -> tuple[str, ...]:
    x = s.conv(image(s), 8)
    y = s.silu(x)
    return x, s.conv(y, 8), y


def input_read_directly(s: Sketch) -> tuple[str, ...]:
    x = image(s)
    return s.conv(x, 8), s.add("Add", x, s.conv(x, 8)), s.add("Abs", x)


def same_tensor_twice(s: Sketch, op_type: str) -> tuple[str, ...]:
    x = s.add("Sigmoid", image(s))
    return (s.add("Sigmoid", s.add(op_type, x, x)),)


def shared_weights(s: Sketch) -> tuple[str, ...]:
    weight, bias = s.normal(8, 8, 3, 3, scale=0.1), s.normal(8)
    x = s.add("Conv", image(s), weight, bias, pads=[1] * 4)
    return (s.add("Conv", x, weight, bias, pads=[1] * 4),)


def dead_channels(s: Sketch) -> tuple[str, ...]:
    """Channels without weights or with tiny ones, under biases that plain int32 codes could not hold."""
    weight = s.generator.standard_normal((8, 8, 3, 3)) * np.asarray([1, 0, 1e-12, 1e-30, 1, 1e-9, 0, 1]).reshape(8, 1, 1, 1)
    return (s.add("Conv", image(s), s.constant(weight), s.constant([1, 3, -3, 5, 0, 1e4, 0, -1]), name="dead"),)


def linear(s: Sketch, *, transposed: int, bias: bool, codes: bool) -> tuple[str, ...]:
    weight = s.normal(*((16, 24) if transposed else (24, 16)), scale=0.2)
    y = s.add("Gemm", s.input("x", 5, 24), weight, *([s.normal(16)] if bias else []), transB=transposed)
    return (s.add("Sigmoid", y) if codes else y,)


def matmul(s: Sketch, *, codes: bool) -> tuple[str, ...]:
    y = s.add("MatMul", s.input("x", 2, 5, 24), s.normal(24, 16, scale=0.2))
    return (s.add("Sigmoid", y) if codes else y,)


def product(s: Sketch, *, codes: bool) -> tuple[str, ...]:
    y = s.add("MatMul", s.input("x", 2, 5, 24), s.input("y", 2, 24, 7))
    return (s.add("Sigmoid", y) if codes else y,)


def moved(s: Sketch) -> tuple[str, ...]:
    def ints(*values: int) -> str:
        return s.constant(values, np.int64)

    x = s.conv(image(s), 8)
    x = s.add("Transpose", s.add("Reshape", x, ints(1, 8, 100)), perm=[0, 2, 1])
    x = s.add("Unsqueeze", s.add("Slice", x, ints(0), ints(64), ints(1)), ints(1))
    x = s.add("Gather", s.add("Squeeze", x, ints(0, 1)), ints(0, 5, 9, 3), axis=0)
    x = s.add("Tile", s.add("Expand", s.add("Flatten", x), ints(2, 4, 8)), ints(1, 1, 2))
    return (s.add("MatMul", x, s.normal(16, 6)),)


Q, DQ = "QuantizeLinear", "DequantizeLinear"
FORMS: dict[str, tuple[Build, dict[str, int]]] = {
    "conv": (lambda s: (s.conv(image(s), 8, outputs=12),), {"QLinearConv": 1, Q: 1, DQ: 1}),
    "conv without bias": (lambda s: (s.conv(image(s), 8, bias=False),), {"QLinearConv": 1, Q: 1, DQ: 1}),
    "conv 1 x 1": (lambda s: (s.conv(image(s), 8, size=1),), {"QLinearConv": 1, Q: 1, DQ: 1}),
    "conv 5 x 5, strided, dilated": (
        lambda s: (s.conv(image(s), 8, size=5, strides=[2, 1], dilations=[1, 2]),),
        {"QLinearConv": 1, Q: 1, DQ: 1},
    ),
    "grouped conv": (lambda s: (s.conv(image(s), 8, group=4),), {"QLinearConv": 1, Q: 1, DQ: 1}),
    "depthwise conv": (lambda s: (s.conv(image(s, channels=16), 16, group=16),), {"QLinearConv": 1, Q: 1, DQ: 1}),
    "depthwise conv, odd channels": (lambda s: (s.conv(image(s, channels=13), 13, group=13),), {"QLinearConv": 1, Q: 1, DQ: 1}),
    "depthwise conv, two outputs a channel": (lambda s: (s.conv(image(s), 8, group=8, outputs=16),), {"QLinearConv": 1, Q: 1, DQ: 1}),
    "conv with dead channels": (dead_channels, {"QLinearConv": 1, Q: 1, DQ: 1}),
    "conv in one dimension": (
        lambda s: (s.add("Conv", s.input("x", 1, 8, 20), s.normal(12, 8, 3, scale=0.2), s.normal(12), pads=[1, 1]),),
        {"QLinearConv": 1, Q: 1, DQ: 1},
    ),
    "depthwise conv in one dimension": (
        lambda s: (s.add("Conv", s.input("x", 1, 8, 20), s.normal(8, 1, 3), s.normal(8), pads=[1, 1], group=8),),
        {"QLinearConv": 1, Q: 1, DQ: 1},
    ),
    **{
        f"gemm, transB {t}, bias {int(b)}, codes {int(c)}": (
            lambda s, t=t, b=b, c=c: linear(s, transposed=t, bias=b, codes=c),  # type: ignore[misc]
            {"QGemm": 1, Q: 1, "QLinearSigmoid": int(c), DQ: int(c)},
        )
        for t in (0, 1)
        for b in (False, True)
        for c in (False, True)
    },
    "matmul to float": (lambda s: matmul(s, codes=False), {"MatMulIntegerToFloat": 1, Q: 1}),
    "matmul to codes": (lambda s: matmul(s, codes=True), {"QLinearMatMul": 1, "QLinearSigmoid": 1, Q: 1, DQ: 1}),
    "product to float": (lambda s: product(s, codes=False), {"MatMulIntegerToFloat": 1, Q: 2}),
    "product to codes": (lambda s: product(s, codes=True), {"QLinearMatMul": 1, "QLinearSigmoid": 1, Q: 2, DQ: 1}),
    "add": (lambda s: (s.add("Add", image(s), image(s, "y")),), {"QLinearAdd": 1, Q: 2, DQ: 1}),
    "add, broadcast": (lambda s: (s.add("Add", image(s), s.input("y", 1, 8, 1, 1)),), {"QLinearAdd": 1, Q: 2, DQ: 1}),
    "add, constant per channel": (lambda s: through(s, "Add", s.normal(8, 1, 1)), {"QLinearAdd": 1, "QLinearSigmoid": 2, Q: 1, DQ: 1}),
    "add, constant number": (lambda s: through(s, "Add", s.constant(-0.3)), {"QLinearAdd": 1, "QLinearSigmoid": 2, Q: 1, DQ: 1}),
    "mul": (lambda s: (s.add("Mul", image(s), image(s, "y")),), {"QLinearMul": 1, Q: 2, DQ: 1}),
    "mul, broadcast": (lambda s: (s.add("Mul", s.input("y", 1, 8, 1, 1), image(s)),), {"QLinearMul": 1, Q: 2, DQ: 1}),
    "mul, constant per channel": (lambda s: through(s, "Mul", s.normal(8, 1, 1)), {"QLinearMul": 1, "QLinearSigmoid": 2, Q: 1, DQ: 1}),
    "mul, positive number": (lambda s: through(s, "Mul", s.constant(0.125)), {"QLinearSigmoid": 2, Q: 1, DQ: 1}),
    "mul, negative number": (lambda s: through(s, "Mul", s.constant(-0.5)), {"QLinearMul": 1, "QLinearSigmoid": 2, Q: 1, DQ: 1}),
    "mul, zero": (lambda s: through(s, "Mul", s.constant(0.0)), {"QLinearMul": 1, "QLinearSigmoid": 2, Q: 1, DQ: 1}),
    "concat of two grids": (
        lambda s: (s.add("Concat", image(s), s.add("Sigmoid", image(s, "y")), axis=1),),
        {"QLinearConcat": 1, "QLinearSigmoid": 1, Q: 2, DQ: 1},
    ),
    "concat of one tensor": (lambda s: same_concat(s), {"QLinearConcat": 1, Q: 1, DQ: 1}),
    "global average": (lambda s: (s.add("GlobalAveragePool", image(s)),), {"QLinearGlobalAveragePool": 1, Q: 1, DQ: 1}),
    "sigmoid": (lambda s: (s.add("Sigmoid", image(s)),), {"QLinearSigmoid": 1, Q: 1, DQ: 1}),
    "silu": (lambda s: (s.conv(s.silu(s.conv(image(s), 8)), 8),), {"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1, Q: 1, DQ: 1}),
    "leaky relu": (lambda s: around(s, "LeakyRelu", alpha=0.1), {"QLinearConv": 2, "QLinearLeakyRelu": 1, Q: 1, DQ: 1}),
    "hardswish": (lambda s: around(s, "HardSwish"), {"QLinearConv": 2, "QLinearAdd": 1, "QLinearMul": 1, Q: 1, DQ: 1}),
    "gelu": (lambda s: around(s, "Gelu"), {"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1, Q: 1, DQ: 1}),
    "gelu, tanh": (lambda s: around(s, "Gelu", approximate="tanh"), {"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1, Q: 1, DQ: 1}),
    "relu in the grid": (lambda s: around(s, "Relu"), {"QLinearConv": 2, "Clip": 0, Q: 1, DQ: 1}),
    "relu behind an add": (
        lambda s: (s.conv(s.add("Relu", s.add("Add", image(s), s.conv(s.input("y", 1, 8, 10, 10), 8))), 8),),
        {"QLinearConv": 2, "QLinearAdd": 1, Q: 2, DQ: 1},
    ),
    "clip": (lambda s: around(s, "Clip", s.constant(-0.5), s.constant(0.75)), {"QLinearConv": 2, Q: 1, DQ: 1}),
    "clip without limits": (lambda s: around(s, "Clip"), {"QLinearConv": 2, "Clip": 0, Q: 1, DQ: 1}),
    "nearest resize": (lambda s: resized(s, "nearest"), {"QLinearConv": 2, "Resize": 1, Q: 1, DQ: 1}),
    "linear resize": (lambda s: resized(s, "linear"), {"QLinearConv": 2, "Resize": 1, Q: 2, DQ: 2}),
    "max pool": (
        lambda s: around(s, "MaxPool", kernel_shape=[3, 3], strides=[2, 2]),
        {"QLinearConv": 2, "MaxPool": 1, "NhwcMaxPool": 0, Q: 2, DQ: 2},
    ),
    "average pool": (
        lambda s: around(s, "AveragePool", kernel_shape=[3, 3]),
        {"QLinearConv": 2, "AveragePool": 1, "QLinearAveragePool": 0, Q: 2, DQ: 2},
    ),
    "movements": (moved, {"QLinearConv": 1, "MatMulIntegerToFloat": 1, Q: 1, DQ: 0}),
    "split in two": (lambda s: split_in(s, 2), {"QLinearConv": 3, "Split": 1, Q: 1, DQ: 2}),
    "split in four": (lambda s: split_in(s, 4), {"QLinearConv": 5, "Split": 1, Q: 1, DQ: 4}),
    "conv transpose": (
        lambda s: (s.conv(s.add("ConvTranspose", s.conv(image(s), 8), s.normal(8, 8, 2, 2), strides=[2, 2]), 8),),
        {"QLinearConv": 2, "ConvTranspose": 1, Q: 2, DQ: 2},
    ),
    "residual read three times": (residual, {"QLinearConv": 2, "QLinearAdd": 2, "QLinearMul": 2, "QLinearSigmoid": 1, Q: 1, DQ: 1}),
    "outputs that others read": (outputs_that_are_read, {"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1, Q: 1, DQ: 3}),
    "input read directly": (input_read_directly, {"QLinearConv": 2, "QLinearAdd": 1, Q: 1, DQ: 2}),
    "x + x": (lambda s: same_tensor_twice(s, "Add"), {"QLinearAdd": 1, "QLinearSigmoid": 2, Q: 1, DQ: 1}),
    "x * x": (lambda s: same_tensor_twice(s, "Mul"), {"QLinearMul": 1, "QLinearSigmoid": 2, Q: 1, DQ: 1}),
    "x @ x": (lambda s: same_tensor_twice(s, "MatMul"), {"QLinearMatMul": 1, "QLinearSigmoid": 2, Q: 1, DQ: 1}),
    "one weight for two layers": (shared_weights, {"QLinearConv": 2, Q: 1, DQ: 1}),
}
INTEGER = frozenset(["QGemm", "MatMulIntegerToFloat", "NhwcMaxPool"])


def same_concat(s: Sketch) -> tuple[str, ...]:
    x = image(s)
    return (s.add("Concat", x, x, axis=1),)


def built(build: Build, seed: int = 0) -> ir.Model:
    sketch = Sketch(seed)
    return sketch.model(*build(sketch))


@targets
@pytest.mark.parametrize(("build", "kernels"), FORMS.values(), ids=FORMS)
def test_the_runtime_runs_the_kernels_meant_and_agrees_to_the_code(
    build: Build, kernels: dict[str, int], target: str, tmp_path: Path
) -> None:
    planned = plan_for(built(build), target)
    proto = emitted(planned)
    found = kernels_of(proto, planned.target, tmp_path)
    assert {op: found[op] for op in kernels} == kernels
    integer = {op for op in found if op.startswith("QLinear") or op in INTEGER}
    assert integer <= set(kernels), "a kernel that was not planned"
    assert parity(planned, proto) == EXACT_DB


@targets
@pytest.mark.parametrize("bits", [(8, 6), (4, 8), (5, 4)])
@pytest.mark.parametrize(
    "name", ["silu", "hardswish", "residual read three times", "relu in the grid", "split in two", "x @ x", "movements"]
)
def test_fewer_bits_keep_the_kernels_and_the_limits(name: str, bits: tuple[int, int], target: str, tmp_path: Path) -> None:
    build, kernels = FORMS[name]
    planned = plan_for(built(build), target, bits=bits)
    proto = emitted(planned)
    found = kernels_of(proto, planned.target, tmp_path)
    assert {op: found[op] for op in kernels if op != "Clip"} == {op: n for op, n in kernels.items() if op != "Clip"}
    assert (found["Clip"] > 0) == (bits[1] < 8)
    assert parity(planned, proto) == EXACT_DB


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_a_clamp_inside_a_wider_grid_becomes_an_integer_clip(target: str, tmp_path: Path) -> None:
    """The same tensor range with and without a Relu: a grid that reaches below zero needs the Clip on the codes."""
    planned = plan_for(built(FORMS["relu in the grid"][0]), target)
    (name,) = [n for n, op in planned.plan.ops.items() if op.op_type == "Relu"]
    relu = f"{name}.0"
    tensor_plan = planned.plan.tensors[relu]
    assert tensor_plan.params is not None
    wide = type(tensor_plan.params)(tensor_plan.params.scale, (tensor_plan.params.zero_point[0] + 40,), 8, tensor_plan.params.signed)
    plan = planned.plan.with_ops({**planned.plan.tensors, relu: type(tensor_plan)("measured", wide)}, planned.plan.ops)
    changed = type(planned)(planned.model, planned.seen, planned.offers, plan, planned.target)
    proto = emitted(changed)
    found = kernels_of(proto, planned.target, tmp_path)
    assert found["QLinearConv"] == 2 and found["Clip"] == 1 and found["Relu"] == 0
    assert parity(changed, proto) == EXACT_DB


@targets
def test_a_deep_network_of_integer_kernels_agrees(target: str, tmp_path: Path) -> None:
    """Convolutions, SiLU and residuals: nothing that a float kernel could disturb."""

    def network(s: Sketch) -> tuple[str, ...]:
        x = s.conv(image(s, channels=3), 3, outputs=16)
        for _ in range(6):
            y = s.silu(s.conv(s.silu(s.conv(x, 16)), 16, group=16))
            x = s.add("Add", x, s.conv(y, 16, size=1))
        return (s.add("Gemm", s.add("Flatten", s.add("GlobalAveragePool", x)), s.normal(16, 10), s.normal(10)),)

    planned = plan_for(built(network), target, method="mse", cheapest=True, placement="all")
    proto = emitted(planned)
    found = kernels_of(proto, planned.target, tmp_path)
    assert found == Counter(
        {
            "QLinearConv": 19,
            "QLinearSigmoid": 12,
            "QLinearMul": 12,
            "QLinearAdd": 6,
            "QLinearGlobalAveragePool": 1,
            "QGemm": 1,
            "QuantizeLinear": 1,
        }
    ) + Counter({op: n for op, n in found.items() if op in ("Transpose", "Flatten")})
    assert parity(planned, proto) > 100.0


def test_dead_channels_still_give_their_bias() -> None:
    """Against float, not against the simulation: both could agree on nonsense."""
    planned = plan_for(built(dead_channels))
    feed = feeds_for(planned.model, 1)[0]
    wanted, got = (run_session(open_session(m, threads=1), feed)["dead.0"] for m in (ir.to_proto(planned.model), emitted(planned)))
    grid = planned.plan.tensors["dead.0"].params
    assert grid is not None
    for channel in (1, 2, 3, 5, 6):
        assert np.abs(got[0, channel] - wanted[0, channel]).max() <= 0.51 * grid.scale[0]
