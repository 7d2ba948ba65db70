from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from converter.torch_backend import ops as torch_ops
from converter.torch_backend.ops.testing.operators import check_operator, floats, positive


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"strides": [2, 1]},
        {"pads": [1, 0, 2, 3]},
        {"dilations": [2, 3], "pads": [2, 3, 2, 3]},
        {"auto_pad": "VALID", "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"kernel_shape": [3, 2], "pads": [1, 1, 1, 1], "strides": [3, 2]},
    ],
    ids=str,
)
def test_convolution(attrs: dict[str, Any]) -> None:
    check_operator("Conv", [floats(2, 4, 9, 10), floats(6, 4, 3, 2, seed=1), floats(6, seed=2)], **attrs)


@pytest.mark.parametrize("group", [2, 4])
def test_grouped_convolution_without_bias(group: int) -> None:
    check_operator("Conv", [floats(1, 4, 6, 6), floats(8, 4 // group, 3, 3, seed=1)], group=group)


def test_convolution_in_one_and_three_dimensions() -> None:
    check_operator("Conv", [floats(1, 4, 9), floats(6, 4, 3, seed=1)], pads=[1, 0], strides=[2])
    check_operator("Conv", [floats(1, 2, 5, 6, 4), floats(3, 2, 3, 2, 1, seed=1)], pads=[1, 0, 0, 1, 1, 0])


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"strides": [2, 3]},
        {"strides": [2, 2], "pads": [1, 0, 0, 1]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"strides": [3, 2], "output_padding": [2, 1]},
        {"dilations": [2, 1], "pads": [1, 1, 1, 1]},
        {"auto_pad": "VALID", "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 3], "output_padding": [1, 1]},
        {"output_shape": [10, 8], "strides": [2, 2]},
        {"output_shape": [9, 8], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"output_shape": [9, 8], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"output_shape": [10, 8], "strides": [2, 2], "output_padding": [1, 1], "dilations": [2, 1]},
    ],
    ids=str,
)
def test_transposed_convolution(attrs: dict[str, Any]) -> None:
    check_operator("ConvTranspose", [floats(1, 4, 5, 4), floats(4, 6, 3, 2, seed=1), floats(6, seed=2)], **attrs)


def test_transposed_convolution_grouped_and_in_one_dimension() -> None:
    check_operator("ConvTranspose", [floats(1, 4, 5, 4), floats(4, 3, 3, 3, seed=1), floats(6, seed=2)], group=2, strides=[2, 2])
    check_operator("ConvTranspose", [floats(1, 4, 5), floats(4, 2, 3, seed=1)], strides=[2])


@pytest.mark.parametrize("flags", [{}, {"transA": 1}, {"transB": 1}, {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}], ids=str)
@pytest.mark.parametrize("bias", [None, (4,), (3, 1), (), (1, 4)], ids=str)
def test_matrix_product_with_bias(flags: dict[str, Any], bias: tuple[int, ...] | None) -> None:
    left = floats(5, 3) if flags.get("transA") else floats(3, 5)
    right = floats(4, 5, seed=1) if flags.get("transB") else floats(5, 4, seed=1)
    check_operator("Gemm", [left, right] + ([] if bias is None else [np.asarray(floats(*bias, seed=2))]), **flags)


@pytest.mark.parametrize(
    ("left", "right"), [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((4,), (4, 3)), ((3, 4), (4,))]
)
def test_matrix_product_broadcasts(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    check_operator("MatMul", [floats(*left), floats(*right, seed=1)])


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]), ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]), ("nchw->nhwc", [(2, 3, 4, 5)])],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    check_operator("Einsum", [floats(*shape, seed=i) for i, shape in enumerate(shapes)], equation=equation)


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("attrs", [{}, {"axis": 0}, {"axis": 1}, {"axis": -2}], ids=str)
def test_softmax(op_type: str, attrs: dict[str, Any]) -> None:
    check_operator(op_type, [floats(2, 3, 4) * 5], **attrs)


@pytest.mark.parametrize("axis", [-1, 1, 2])
@pytest.mark.parametrize("with_bias", [True, False])
def test_layer_normalization(axis: int, with_bias: bool) -> None:
    shape = (3, 4, 6)[axis % 3 :]
    weights = [floats(*shape, seed=1), floats(*shape, seed=2)][: 2 if with_bias else 1]
    check_operator("LayerNormalization", [floats(3, 4, 6), *weights], axis=axis, epsilon=1e-3, stash_type=1)


@pytest.mark.parametrize("shape", [(2, 3, 8), (2, 3, 4, 5), (2, 3, 1, 1)])
def test_instance_normalization(shape: tuple[int, ...]) -> None:
    check_operator("InstanceNormalization", [floats(*shape), floats(3, seed=1), floats(3, seed=2)], epsilon=1e-3)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5)])
def test_batch_normalization_by_recorded_statistics(shape: tuple[int, ...]) -> None:
    inputs = [floats(*shape), floats(3, seed=1), floats(3, seed=2), floats(3, seed=3), positive(3)]
    check_operator("BatchNormalization", inputs, epsilon=1e-3, momentum=0.8)


@pytest.mark.parametrize("p", [1, 2])
def test_length_normalization(p: int) -> None:
    check_operator("LpNormalization", [floats(2, 3, 4)], axis=1, p=p)


def test_training_is_not_covered() -> None:
    with pytest.raises(torch_ops.UnknownOperatorError, match="'BatchNormalization' with training_mode=1"):
        torch_ops.apply("BatchNormalization", [torch.zeros(1, 1)] * 5, {"training_mode": 1})


@pytest.mark.parametrize("attrs", [{}, {"axis": 0}, {"axis": 1}], ids=str)
def test_one_at_the_first_of_the_largest(attrs: dict[str, Any]) -> None:
    check_operator("Hardmax", [np.round(floats(3, 4, 5))], **attrs)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_normalization_by_neighbouring_channels(size: int) -> None:
    check_operator("LRN", [floats(2, 7, 3, 4)], size=size, alpha=0.3, beta=0.6, bias=1.5)


@pytest.mark.parametrize("attrs", [{}, {"axes": [2, 3]}, {"axes": [1]}], ids=str)
def test_normalization_by_mean_and_variance(attrs: dict[str, Any]) -> None:
    check_operator("MeanVarianceNormalization", [floats(2, 3, 4, 5)], **attrs)
