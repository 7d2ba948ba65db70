"""Operators that stay float where the runtime would take them: each case with the barrier, and what happens without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import converter.emit.builder as emit_module
from converter.emit.fusion_barriers import TAKEN
from converter.graph.operator_sets import BARRIER
from converter.runtime.session import open_session
from converter.testing.sketch import TARGET_NAMES, Planned, Sketch, emitted, kernels_of, parity, plan_for, settings_for


def image(s: Sketch) -> str:
    return s.conv(s.input("x", 1, 8, 8, 8), 8, name="before")


def softmax(s: Sketch, *, moved: bool = False, read_by_others: bool = False) -> list[str]:
    x = y = image(s)
    if moved:
        y = s.add("Transpose", s.add("Reshape", y, s.constant([8, 64], np.int64)))
    y = s.add("Softmax", y, name="target")
    if moved:
        y = s.add("Reshape", s.add("Transpose", y), s.constant([1, 8, 8, 8], np.int64))
    return [s.conv(y, 8), *([s.conv(x, 8)] if read_by_others else [])]


def attention(s: Sketch, *, mask: bool, scale: bool = False) -> list[str]:
    x = s.add("Sigmoid", s.input("x", 2, 16, 24))
    query, key, value = (
        s.add("Gemm", s.add("Reshape", x, s.constant([32, 24], np.int64)), s.normal(24, 24), s.normal(24)) for _ in range(3)
    )
    query, key, value = (s.add("Reshape", part, s.constant([2, 16, 24], np.int64)) for part in (query, key, value))
    scores = s.add("MatMul", query, s.add("Transpose", key, perm=[0, 2, 1]))
    scores = s.add("Mul", scores, s.constant(0.2)) if scale else scores
    scores = s.add("Add", scores, s.constant(np.triu(np.full((16, 16), -4.0), 1))) if mask else scores
    return [s.add("Sigmoid", s.add("MatMul", s.add("Softmax", scores, name="target"), value))]


def softmax_behind_gemm(s: Sketch) -> list[str]:
    x = s.add("Gemm", s.input("x", 6, 8), s.normal(8, 8), s.normal(8))
    return [s.add("Sigmoid", s.add("Softmax", x, name="target")), s.add("Sigmoid", x)]


def pool(s: Sketch, op_type: str, *, behind: bool = True, in_front: bool = True) -> list[str]:
    x = image(s) if in_front else s.add("Abs", s.input("x", 1, 8, 8, 8))
    y = s.add(op_type, x, name="target", kernel_shape=[3, 3])
    return [s.conv(y, 8) if behind else s.add("Abs", y)]


def excluded(s: Sketch, op_type: str) -> list[str]:
    x = image(s)
    make: dict[str, Callable[[], str]] = {
        "Conv": lambda: s.conv(x, 8, name="target"),
        "ConvTranspose": lambda: s.add("ConvTranspose", x, s.normal(8, 8, 2, 2, scale=0.1), name="target"),
        "Add": lambda: s.add("Add", x, x, name="target"),
        "Mul": lambda: s.add("Mul", x, x, name="target"),
        "Sigmoid": lambda: s.add("Sigmoid", x, name="target"),
        "LeakyRelu": lambda: s.add("LeakyRelu", x, name="target"),
        "Concat": lambda: s.add("Concat", x, x, axis=2, name="target"),
        "MatMul": lambda: s.add("MatMul", x, x, name="target"),
        "Resize": lambda: s.add("Resize", x, "", s.constant([1, 1, 2, 2]), mode="linear", name="target"),
        "GlobalAveragePool": lambda: s.add("GlobalAveragePool", x, name="target"),
    }
    return [s.conv(make[op_type](), 8)]


def linear(s: Sketch, op_type: str) -> list[str]:
    x = s.add("Sigmoid", s.input("x", 6, 24))
    if op_type == "Gemm":
        y = s.add("Gemm", x, s.normal(24, 16), s.normal(16), name="target")
    else:
        y = s.add("Add", s.add("MatMul", x, s.normal(24, 16), name="target"), s.normal(16), name="offset")
    return [s.add("Sigmoid", y)]


CASES: dict[str, tuple[Callable[[Sketch], list[str]], str]] = {
    "softmax behind a conv": (softmax, "Softmax"),
    "softmax behind a conv that others read": (lambda s: softmax(s, read_by_others=True), "Softmax"),
    "softmax between movements": (lambda s: softmax(s, moved=True), "Softmax"),
    "softmax behind a gemm that others read": (softmax_behind_gemm, "Softmax"),
    "attention with a mask": (lambda s: attention(s, mask=True), "Softmax"),
    "attention with a factor": (lambda s: attention(s, mask=False, scale=True), "Softmax"),
    "average pool": (lambda s: pool(s, "AveragePool"), "AveragePool"),
    "max pool": (lambda s: pool(s, "MaxPool"), "MaxPool"),
    "max pool behind codes": (lambda s: pool(s, "MaxPool", behind=False), "MaxPool"),
    "max pool in front of codes": (lambda s: pool(s, "MaxPool", in_front=False), "MaxPool"),
    **{
        f"excluded {op}": (lambda s, op=op: excluded(s, op), op)  # type: ignore[misc]
        for op in ("Conv", "ConvTranspose", "Add", "Mul", "Sigmoid", "LeakyRelu", "Concat", "MatMul", "Resize", "GlobalAveragePool")
    },
    "excluded gemm": (lambda s: linear(s, "Gemm"), "Gemm"),
    "excluded matmul with a bias": (lambda s: linear(s, "MatMul"), "Gemm"),
}


def planned_case(build: Callable[[Sketch], list[str]]) -> Planned:
    sketch = Sketch()
    return plan_for(sketch.model(*build(sketch)), excluded={"target", "offset"})


def found_kernels(planned: Planned, folder: Path) -> Counter[str]:
    return kernels_of(emitted(planned), planned.target, folder)


@pytest.mark.parametrize(("build", "op_type"), CASES.values(), ids=CASES)
def test_what_is_planned_in_float_runs_in_float(build: Callable[[Sketch], list[str]], op_type: str, tmp_path: Path) -> None:
    planned = planned_case(build)
    found = found_kernels(planned, tmp_path)
    assert found[op_type] >= 1
    assert found["QLinearSoftmax"] == found["QLinearAveragePool"] == found["NhwcMaxPool"] == 0
    if op_type in ("Add", "Mul", "Sigmoid", "LeakyRelu", "Concat", "GlobalAveragePool"):
        assert found[f"QLinear{op_type}"] == 0
    # float kernels of torch and of the runtime differ in the last bits
    assert parity(planned, emitted(planned)) > 100.0


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("excluded Resize", "max pool", "max pool in front of codes")])
def test_without_the_barrier_the_runtime_takes_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this starts to fail for a case, the runtime has changed and the barrier there can go."""
    build, op_type = CASES[name]
    planned = planned_case(build)
    guarded = found_kernels(planned, tmp_path)
    monkeypatch.setattr(emit_module, "add_barriers", lambda builder, floats: None)
    bare = found_kernels(planned, tmp_path)
    assert guarded[BARRIER] > bare[BARRIER] == 0
    if op_type in ("ConvTranspose", "Gemm"):
        # the kernel stays, on weights that were rounded to int8 with one scale for the whole tensor
        assert parity(planned, emitted(planned)) < 60.0
    else:
        assert bare[op_type] < guarded[op_type]


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_a_float_bias_is_not_joined_to_an_integer_product(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime would make a float Gemm of both, with weights that it brings back to float in every run."""
    s = Sketch()
    x = s.add("MatMul", s.input("x", 1, 12, 8), s.normal(8, 8), name="product")
    model = s.model(s.add("Erf", s.add("Add", x, s.normal(8), name="bias")))
    planned = plan_for(model, target, integer={"product"})
    kernels = kernels_of(emitted(planned), planned.target, tmp_path)
    assert kernels["MatMulIntegerToFloat"] == 1 and kernels["Gemm"] == 0
    assert parity(planned, emitted(planned)) > 100.0
    monkeypatch.setattr(emit_module, "add_barriers", lambda builder, floats: None)
    assert kernels_of(emitted(planned), planned.target, tmp_path)["Gemm"] == 1


def test_a_q_is_not_moved_in_front_of_a_max_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def maker_of_the_pools_input(planned: Planned) -> str:
        path = tmp_path / "optimised.onnx"
        open_session(emitted(planned), threads=1, settings=settings_for(planned.target), optimised_path=path)
        graph = onnx.load(path).graph
        (pool_node,) = [n for n in graph.node if n.op_type == "MaxPool"]
        return str(next(n.op_type for n in graph.node if pool_node.input[0] in n.output))

    planned = planned_case(CASES["max pool in front of codes"][0])
    assert maker_of_the_pools_input(planned) != "QuantizeLinear"
    monkeypatch.setattr(emit_module, "add_barriers", lambda builder, floats: None)
    assert maker_of_the_pools_input(planned) == "QuantizeLinear"


def test_integer_operators_meet_no_barrier(tmp_path: Path) -> None:
    sketch = Sketch()
    x = image(sketch)
    assert found_kernels(plan_for(sketch.model(sketch.add("Add", x, sketch.conv(sketch.silu(x), 8)))), tmp_path)[BARRIER] == 0


def test_float_neighbours_need_no_barrier(tmp_path: Path) -> None:
    sketch = Sketch()
    x = sketch.add("Abs", image(sketch))
    y = sketch.add("Abs", sketch.add("Softmax", sketch.add("AveragePool", x, kernel_shape=[3, 3])))
    assert found_kernels(plan_for(sketch.model(sketch.conv(y, 8))), tmp_path)[BARRIER] == 0


def test_attention_whose_neighbours_are_all_integer(tmp_path: Path) -> None:
    """Without mask or factor the product before the Softmax writes float numbers by itself."""
    sketch = Sketch()
    planned = plan_for(sketch.model(*attention(sketch, mask=False)))
    found = found_kernels(planned, tmp_path)
    assert (found["Softmax"], found["QLinearSoftmax"], found[BARRIER], found["MatMulIntegerToFloat"]) == (1, 0, 0, 1)
    assert (found["QGemm"], found["QLinearMatMul"]) == (3, 1)


def test_the_table_names_no_operator_that_only_moves_data() -> None:
    assert not TAKEN & {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Expand", "Tile"}
