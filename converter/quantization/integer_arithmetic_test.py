"""Codes in, codes out: every combination of two codes through the runtime's kernel and through the simulation's formula."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from converter.quantization.integer_arithmetic import add, centred, global_average, multiply, requantize, sum_of_products
from converter.quantization.parameters import QuantParams, affine_params, dequantize
from converter.runtime.session import open_session
from converter.torch_backend import ops as torch_ops
from converter.verify.simulation import fake_quantize_tensor

Codes = npt.NDArray[Any]
SIGNED = pytest.mark.parametrize("signed", [True, False], ids=["int8", "uint8"])


def random_grid(generator: np.random.Generator, signed: bool) -> QuantParams:
    return affine_params(-generator.uniform(0, 4), generator.uniform(0.1, 6), bits=8, signed=signed)


def run_kernel(
    op_type: str, inputs: Sequence[Codes], grids: Sequence[QuantParams], out: QuantParams, folder: Path, **attributes: Any
) -> Codes:
    """Run DQ, operator, Q in the runtime, which must replace them by its integer kernel."""
    initializers, nodes, infos = [], [], []
    for i, grid in enumerate([*grids, out]):
        initializers.append(numpy_helper.from_array(np.asarray(grid.scale[0], np.float32), f"scale{i}"))
        initializers.append(numpy_helper.from_array(np.asarray(grid.zero_point[0], grid.dtype), f"zero{i}"))
    for i, codes in enumerate(inputs):
        infos.append(helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(codes.dtype), codes.shape))
        nodes.append(helper.make_node("DequantizeLinear", [f"x{i}", f"scale{i}", f"zero{i}"], [f"real{i}"]))
    last = len(inputs)
    nodes.append(helper.make_node(op_type, [f"real{i}" for i in range(last)], ["y_real"], **attributes))
    nodes.append(helper.make_node("QuantizeLinear", ["y_real", f"scale{last}", f"zero{last}"], ["y"]))
    kind = TensorProto.INT8 if out.signed else TensorProto.UINT8
    graph = helper.make_graph(nodes, "kernel", infos, [helper.make_tensor_value_info("y", kind, None)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path = folder / "kernel.onnx"
    session = open_session(model, threads=1, settings={"session.qdqisint8allowed": "1"}, optimised_path=path)
    assert f"QLinear{op_type}" in {n.op_type for n in onnx.load(path).graph.node}
    (result,) = session.run(None, {f"x{i}": codes for i, codes in enumerate(inputs)})
    return np.asarray(result)


def all_codes(grid: QuantParams) -> Codes:
    return np.arange(grid.qmin, grid.qmax + 1).astype(grid.dtype)


def centred_codes(codes: Codes, grid: QuantParams) -> torch.Tensor:
    return torch.from_numpy(codes.astype(np.float32) - grid.zero_point[0])


def codes_of(real: torch.Tensor, grid: QuantParams) -> Codes:
    return np.rint(real.numpy() / np.float32(grid.scale[0])).astype(np.int32) + grid.zero_point[0]


@SIGNED
@pytest.mark.parametrize("op_type", ["Add", "Mul"])
def test_all_pairs_of_codes_agree(op_type: str, signed: bool, tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    formula = {"Add": add, "Mul": multiply}[op_type]
    for _ in range(30):
        grids, out = (random_grid(generator, signed), random_grid(generator, signed)), random_grid(generator, signed)
        a, b = np.repeat(all_codes(grids[0]), 256), np.tile(all_codes(grids[1]), 256)
        got = codes_of(formula(centred_codes(a, grids[0]), centred_codes(b, grids[1]), grids, out), out)
        np.testing.assert_array_equal(got, run_kernel(op_type, [a, b], grids, out, tmp_path))


@SIGNED
@pytest.mark.parametrize(
    "shapes", [((1, 16, 32, 32), (1, 16, 1, 1)), ((16, 256), (256,)), ((1,), (16, 256)), ((1, 8, 1, 1), (1, 1, 32, 32))]
)
def test_broadcast_additions_agree(shapes: tuple[tuple[int, ...], tuple[int, ...]], signed: bool, tmp_path: Path) -> None:
    generator = np.random.default_rng(6)
    for _ in range(20):
        grids, out = (random_grid(generator, signed), random_grid(generator, signed)), random_grid(generator, signed)
        a, b = (generator.choice(all_codes(g), shape) for g, shape in zip(grids, shapes, strict=True))
        got = codes_of(add(centred_codes(a, grids[0]), centred_codes(b, grids[1]), grids, out), out)
        np.testing.assert_array_equal(got, run_kernel("Add", [a, b], grids, out, tmp_path))


@SIGNED
def test_global_averages_agree(signed: bool, tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    for _ in range(40):
        grid, out = (
            random_grid(generator, signed),
            affine_params(-generator.uniform(0, 1), generator.uniform(0.1, 1), bits=8, signed=signed),
        )
        x = generator.choice(all_codes(grid), (1, 64, *generator.integers(1, 20, 2)))
        got = codes_of(global_average(centred_codes(x, grid), grid, out), out)
        np.testing.assert_array_equal(got, run_kernel("GlobalAveragePool", [x], [grid], out, tmp_path))


def test_a_global_average_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0], [4.0, 4.0]]]])
    grid, out = QuantParams((0.5,), (0,), 8, True), QuantParams((0.25,), (3,), 8, True)
    # 11 codes of 0.5 over 4 places: 1.375, that is 5.5 steps of 0.25, and half goes to even
    assert global_average(x, grid, out).item() == 1.5


@SIGNED
@pytest.mark.parametrize(("op_type", "attributes"), [("Sigmoid", {}), ("LeakyRelu", {"alpha": 0.1}), ("LeakyRelu", {"alpha": 0.01})])
def test_functions_of_one_code_agree(op_type: str, attributes: dict[str, float], signed: bool, tmp_path: Path) -> None:
    generator = np.random.default_rng(8)
    for _ in range(40):
        grid = random_grid(generator, signed)
        out = QuantParams((2.0**-8,), (-128 if signed else 0,), 8, signed) if op_type == "Sigmoid" else random_grid(generator, signed)
        (real,) = torch_ops.apply(op_type, [torch.from_numpy(dequantize(all_codes(grid), grid))], attributes)
        got = codes_of(fake_quantize_tensor(real, out), out)
        np.testing.assert_array_equal(got, run_kernel(op_type, [all_codes(grid)], [grid], out, tmp_path, **attributes))


@SIGNED
def test_concatenation_of_different_grids_agrees(signed: bool, tmp_path: Path) -> None:
    generator = np.random.default_rng(9)
    for _ in range(40):
        grids, out = [random_grid(generator, signed), random_grid(generator, signed)], random_grid(generator, signed)
        real = torch.from_numpy(np.concatenate([dequantize(all_codes(g), g) for g in grids]))
        got = codes_of(fake_quantize_tensor(real, out), out)
        np.testing.assert_array_equal(got, run_kernel("Concat", [all_codes(g) for g in grids], grids, out, tmp_path, axis=0))


def test_centred_codes_are_whole_numbers_again() -> None:
    grid = affine_params(-1.3, 2.9, bits=8, signed=False)
    real = torch.from_numpy(dequantize(all_codes(grid), grid))
    np.testing.assert_array_equal(centred(real, grid).numpy(), np.arange(256) - grid.zero_point[0])


@pytest.mark.parametrize("largest", [2.0**20, 2.0**30])
def test_sums_of_products_are_exact(largest: float) -> None:
    generator = np.random.default_rng(10)
    length = int(largest) // (255 * 127) if largest < 2**24 else 30000
    x, w = generator.integers(-255, 256, (3, length)), generator.integers(-127, 128, (length, 5))
    sums = sum_of_products(torch.matmul, torch.from_numpy(x), torch.from_numpy(w), largest)
    assert sums.dtype == torch.float64
    np.testing.assert_array_equal(sums.numpy(), x @ w)


def test_requantization_by_hand() -> None:
    sums = torch.tensor([3.0, 5.0, -7.0, 1000.0, 2.0**24 + 1], dtype=torch.float64)
    out = QuantParams((0.5,), (-10,), 8, True)
    # half a code per unit: 1.5 -> 2, 2.5 -> 2, -3.5 -> -4, clipped at 127 + 10 codes
    assert requantize(sums[:4], torch.tensor(0.5), out, torch.tensor(0.0)).tolist() == [1.0, 1.0, -2.0, 68.5]
    # without an output grid the sum becomes a float32 number first: 2^24 + 1 has none
    assert requantize(sums, torch.tensor(0.0), None, torch.tensor(0.5)).tolist() == [1.5, 2.5, -3.5, 500.0, 2.0**23]
