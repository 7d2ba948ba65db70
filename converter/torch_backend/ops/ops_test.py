from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from torch.autograd import gradcheck

from converter.torch_backend import ops as torch_ops
from converter.torch_backend.ops import indexing, layers, movement, pointwise, pooling, recurrent, resize, sampling

TABLES = (
    pointwise.FLOAT,
    pointwise.OTHER,
    layers.TABLE,
    pooling.TABLE,
    resize.TABLE,
    movement.TABLE,
    indexing.TABLE,
    sampling.TABLE,
    recurrent.TABLE,
)
EVERY_RULE = {op_type: rule for table in TABLES for op_type, rule in table.items()}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_an_operator_without_a_rule_is_named() -> None:
    assert not torch_ops.known("NonZero")
    with pytest.raises(torch_ops.UnknownOperatorError, match="'NonZero'"):
        torch_ops.apply("NonZero", [torch.zeros(1)], {})


def test_an_attribute_that_no_rule_honours_is_named() -> None:
    assert torch_ops.known("Relu")
    with pytest.raises(torch_ops.UnknownOperatorError, match=r"'Relu' with slope=0\.1"):
        torch_ops.apply("Relu", [torch.zeros(1)], {"slope": 0.1})


@pytest.mark.parametrize("op_type", sorted(EVERY_RULE))
def test_every_attribute_of_the_specification_is_honoured_or_ignored_on_purpose(op_type: str) -> None:
    rule = EVERY_RULE[op_type]
    schema = onnx.defs.get_schema(op_type, max_inclusive_version=20)
    assert set(schema.attributes) == rule.honours | set(rule.ignores)


def test_no_two_tables_claim_an_operator() -> None:
    assert sum(len(t) for t in TABLES) == len(EVERY_RULE)


@pytest.mark.parametrize(
    ("op_type", "shapes", "constants", "attrs"),
    [
        ("Conv", [(1, 4, 5, 5), (6, 2, 3, 3), (6,)], [], {"group": 2, "pads": [1, 0, 1, 2], "strides": [2, 1]}),
        ("ConvTranspose", [(1, 2, 3, 3), (2, 2, 3, 3), (2,)], [], {"strides": [2, 2], "pads": [1, 1, 0, 0]}),
        ("Gemm", [(2, 3), (4, 3), (4,)], [], {"transB": 1, "alpha": 0.5}),
        ("MatMul", [(2, 2, 3), (3, 4)], [], {}),
        ("Softmax", [(2, 5)], [], {}),
        ("LayerNormalization", [(2, 6), (6,), (6,)], [], {}),
        ("InstanceNormalization", [(2, 2, 3, 3), (2,), (2,)], [], {}),
        ("Gelu", [(7,)], [], {}),
        ("HardSwish", [(7,)], [], {}),
        ("Clip", [(7,)], [torch.tensor(-1.0), torch.tensor(1.0)], {}),
        ("AveragePool", [(1, 2, 5, 5)], [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("MaxPool", [(1, 2, 5, 5)], [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("ReduceMean", [(2, 3)], [torch.tensor([1])], {}),
        ("ReduceL2", [(2, 3)], [torch.tensor([1])], {}),
        ("Resize", [(1, 1, 3, 3)], [None, torch.tensor([1.0, 1.0, 2.0, 1.5])], {"mode": "linear"}),
        ("Pad", [(2, 3)], [torch.tensor([0, 2, 1, 1])], {"mode": "reflect"}),
        ("Slice", [(4, 5)], [torch.tensor([4]), torch.tensor([0]), torch.tensor([1]), torch.tensor([-2])], {}),
        ("Gather", [(4, 3)], [torch.tensor([[0, -1], [2, 0]])], {}),
        ("Expand", [(3, 1)], [torch.tensor([2, 3, 4])], {}),
        ("Split", [(2, 5)], [torch.tensor([2, 3])], {"axis": 1}),
        ("Transpose", [(2, 3, 4)], [], {"perm": [2, 0, 1]}),
        ("Concat", [(2, 3), (2, 1)], [], {"axis": 1}),
        ("DepthToSpace", [(1, 4, 2, 2)], [], {"blocksize": 2}),
        ("GatherElements", [(3, 4)], [torch.tensor([[0, -1, 2, 1]])], {}),
        ("GatherND", [(3, 4)], [torch.tensor([[0, -1], [2, 1]])], {}),
        ("ScatterND", [(3, 4)], [torch.tensor([[0], [2]]), torch.ones(2, 4, dtype=torch.float64)], {}),
        ("ScatterElements", [(3, 4)], [torch.tensor([[0, 2, 1, 0]]), torch.ones(1, 4, dtype=torch.float64)], {"reduction": "add"}),
        ("CumSum", [(3, 4)], [torch.tensor(1)], {"exclusive": 1, "reverse": 1}),
        ("Trilu", [(3, 4)], [torch.tensor(1)], {}),
        ("LSTM", [(3, 1, 2), (1, 8, 2), (1, 8, 2), (1, 16)], [], {"hidden_size": 2}),
        ("GridSample", [(1, 2, 4, 4), (1, 3, 3, 2)], [], {}),
        ("AffineGrid", [(1, 2, 3)], [torch.tensor([1, 2, 3, 3])], {}),
        ("ConvTranspose", [(1, 2, 3, 3), (2, 2, 3, 3)], [], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("ReduceLogSumExp", [(2, 3)], [torch.tensor([1])], {}),
        ("ReduceProd", [(2, 3)], [torch.tensor([1])], {}),
        ("LRN", [(1, 4, 2, 2)], [], {"size": 3}),
        ("Celu", [(7,)], [], {}),
        ("Resize", [(1, 1, 6, 6)], [None, torch.tensor([1.0, 1.0, 0.5, 0.7])], {"mode": "cubic", "antialias": 1}),
        ("Einsum", [(2, 3), (3, 4)], [], {"equation": "ij,jk->ik"}),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_gradients_agree_with_differences(op_type: str, shapes: list[tuple[int, ...]], constants: list[Any], attrs: dict[str, Any]) -> None:
    tensors = [random(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    assert gradcheck(lambda *inputs: tuple(torch_ops.apply(op_type, [*inputs, *constants], attrs)), tensors)


def test_the_largest_numbers_pass_gradients_where_they_come_from() -> None:
    x = torch.tensor([[1.0, 5.0, 3.0]], requires_grad=True)
    values, places = torch_ops.apply("TopK", [x, torch.tensor([2])], {})
    (gradient,) = torch.autograd.grad((values * torch.tensor([1.0, 2.0])).sum(), x)
    assert places.tolist() == [[1, 2]]
    assert gradient.tolist() == [[0.0, 1.0, 2.0]]
