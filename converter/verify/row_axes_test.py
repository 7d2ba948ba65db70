from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from converter.testing.sketch import Sketch
from converter.verify.row_axes import row_axes
from converter.verify.simulation import simulate_all

N, K = 5, 7


def selected(sketch: Sketch) -> str:
    """Rows [1, 5, 7] that a TopK picks among 12 by a score, from tokens [1, 12, 7]."""
    x = sketch.input("x", 1, 12, K)
    score = sketch.add("ReduceMax", x, sketch.constant([-1], np.int64), keepdims=0)
    _, indices = sketch.split("TopK", score, sketch.constant([N], np.int64), outputs=2, axis=1)
    return gather(sketch, x, indices, K)


def gather(sketch: Sketch, x: str, indices: str, width: int) -> str:
    column = sketch.add("Unsqueeze", indices, sketch.constant([-1], np.int64))
    return sketch.add("GatherElements", x, sketch.add("Tile", column, sketch.constant([1, 1, width], np.int64)), axis=1)


def axes_of(sketch: Sketch, *outputs: str) -> list[int | None]:
    """Of a model whose outputs say nothing of their types and shapes."""
    infos = [onnx.ValueInfoProto(name=o) for o in outputs]
    graph = helper.make_graph(sketch.nodes, "sketch", sketch.inputs, infos, sketch.initializers)
    model: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
    generator = np.random.default_rng(0)
    feed = {str(v.name): generator.standard_normal(tuple(v.shape or ())).astype(np.float32) for v in model.graph.inputs}  # type: ignore[arg-type]
    shapes = {name: value.shape for name, value in simulate_all(model, None, feed, {}).items()}
    found = row_axes(model, shapes)
    return [found.get(o) for o in outputs]


def integers(sketch: Sketch, *numbers: int) -> str:
    return sketch.constant(numbers, np.int64)


def columns(sketch: Sketch, x: str, count: int) -> str:
    return sketch.add("Slice", x, integers(sketch, 0), integers(sketch, count), integers(sketch, -1))


def boxes(sketch: Sketch, x: str) -> str:
    return columns(sketch, sketch.add("Squeeze", x, integers(sketch, 0)), 4)


def labels(sketch: Sketch, x: str) -> str:
    return sketch.add("ArgMax", x, axis=2, keepdims=0)


@pytest.mark.parametrize(
    ("then", "axis"),
    [
        (lambda s, x: s.add("Relu", x), 1),
        (lambda s, x: s.add("MatMul", x, s.normal(K, 4)), 1),
        (lambda s, x: s.add("Add", x, s.normal(1, 1, K)), 1),
        (lambda s, x: s.add("Transpose", x, perm=[0, 2, 1]), 2),
        (lambda s, x: s.add("Squeeze", x, integers(s, 0)), 0),
        (lambda s, x: s.add("Unsqueeze", x, integers(s, 1)), 2),
        (lambda s, x: s.add("Reshape", x, integers(s, N, K)), 0),
        (lambda s, x: s.add("Reshape", x, integers(s, 1, N, 1, K)), 1),
        (lambda s, x: s.add("Reshape", x, integers(s, N * K)), None),
        (lambda s, x: s.add("ReduceMean", x, integers(s, 2), keepdims=0), 1),
        (lambda s, x: s.add("ReduceMean", x, integers(s, 0), keepdims=0), 0),
        (lambda s, x: s.add("ReduceMean", x, integers(s, 1)), None),
        (lambda s, x: s.add("GlobalAveragePool", x), 1),
        (lambda s, x: s.add("Softmax", x, axis=1), 1),
        (lambda s, x: s.add("Concat", x, s.normal(1, 2, K), axis=1), 1),
        (lambda s, x: s.add("Slice", x, integers(s, 0), integers(s, 3), integers(s, 1)), 1),
        (lambda s, x: s.add("Gather", x, s.constant(0, np.int64), axis=1), None),
        (lambda s, x: s.add("Gather", x, integers(s, 1, 2), axis=2), 1),
        (lambda s, x: s.add("Gather", s.normal(3, 9, 2), labels(s, x), axis=1), 2),
        (lambda s, x: s.add("Einsum", x, s.normal(1, 3, K), equation="bnk,bmk->bmn"), 2),
        (lambda s, x: s.add("Gemm", s.add("Squeeze", x, integers(s, 0)), s.normal(2, K), transB=1), 0),
        (lambda s, x: s.add("Gemm", s.normal(2, K), s.add("Squeeze", x, integers(s, 0)), transB=1), 1),
        (lambda s, x: s.add("MatMul", s.normal(1, 3, K), s.add("Transpose", x, perm=[0, 2, 1])), 2),
        (lambda s, x: s.add("MatMul", s.normal(1, 3, N), x), None),
        (lambda s, x: s.add("GridSample", s.normal(1, 3, 4, 4), s.add("Reshape", columns(s, x, 2), integers(s, 1, N, 1, 2))), 2),
        (lambda s, x: s.add("RoiAlign", s.normal(1, 3, 4, 4), boxes(s, x), integers(s, *[0] * N), sampling_ratio=1), 0),
        (lambda s, x: s.add("ScatterElements", s.normal(1, 12, K), s.constant(np.zeros((1, N, K)), np.int64), x, axis=1), None),
    ],
)  # fmt: skip
def test_selected_rows_are_followed(then: Callable[[Sketch, str], str], axis: int | None) -> None:
    sketch = Sketch()
    assert axes_of(sketch, then(sketch, selected(sketch))) == [axis]


def test_an_output_that_does_not_depend_on_a_selection_has_no_such_rows() -> None:
    sketch = Sketch()
    x = selected(sketch)
    assert axes_of(sketch, sketch.add("Relu", "x"), x) == [None, 1]


def test_a_decoder_that_attends_from_selected_queries_keeps_their_axis() -> None:
    """Queries are split into heads and joined again; a residual connection carries them past what mixes them."""
    sketch = Sketch()
    x = selected(sketch)
    query = sketch.add("MatMul", x, sketch.normal(K, 6))
    memory = sketch.normal(1, 2, 3, 9)
    heads = sketch.add("Transpose", sketch.add("Reshape", query, integers(sketch, 1, N, 2, 3)), perm=[0, 2, 1, 3])
    scores = sketch.add("Softmax", sketch.add("MatMul", heads, memory))
    mixed = sketch.add("MatMul", scores, sketch.normal(1, 2, 9, 3))
    joined = sketch.add("Reshape", sketch.add("Transpose", mixed, perm=[0, 2, 1, 3]), integers(sketch, 1, N, 6))
    boxes = sketch.add("Sigmoid", sketch.add("MatMul", sketch.add("Add", joined, query), sketch.normal(6, 4)))
    assert axes_of(sketch, boxes, sketch.add("MatMul", joined, sketch.normal(6, 20))) == [1, 1]


def test_the_number_of_rows_may_depend_on_the_data() -> None:
    sketch = Sketch()
    x = sketch.input("x", 1, 12, 4)
    found = sketch.add("NonZero", sketch.add("Greater", sketch.add("ReduceMax", x, integers(sketch, 2), keepdims=0), sketch.constant(0.5)))
    picked = sketch.add("GatherND", x, sketch.add("Transpose", found, perm=[1, 0]))
    assert axes_of(sketch, sketch.add("Identity", found), picked, sketch.add("Relu", picked)) == [1, 0, 0]


def test_no_row_at_all_keeps_its_axis() -> None:
    sketch = Sketch()
    x = sketch.input("x", 1, 12, 4)
    found = sketch.add("NonZero", sketch.add("Greater", sketch.add("ReduceMax", x, integers(sketch, 2), keepdims=0), sketch.constant(1e9)))
    picked = sketch.add("GatherND", x, sketch.add("Transpose", found, perm=[1, 0]))
    assert axes_of(sketch, sketch.add("Unsqueeze", picked, integers(sketch, 0)), sketch.add("Sqrt", picked)) == [1, 0]


def test_both_outputs_of_a_selection_and_what_came_before_it_have_their_rows() -> None:
    """The labels of the best scores over all queries and classes, as a detector's last step takes them."""
    sketch = Sketch()
    x = selected(sketch)
    scores = sketch.add("Reshape", sketch.add("MatMul", x, sketch.normal(K, 3)), integers(sketch, 1, 3 * N))
    best, places = sketch.split("TopK", scores, integers(sketch, 4), outputs=2)
    boxes = gather(sketch, x, sketch.add("Div", places, sketch.constant(3, np.int64)), K)
    assert axes_of(sketch, best, places, boxes) == [1, 1, 1]
