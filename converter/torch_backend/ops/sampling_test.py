from __future__ import annotations

import numpy as np
import pytest
import torch

from converter.torch_backend import ops as torch_ops
from converter.torch_backend.ops.testing.operators import check_operator, floats, ints


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("border", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [0, 1])
def test_grid_sample(mode: str, border: str, align_corners: int) -> None:
    grid = np.random.default_rng(1).uniform(-1.4, 1.4, (2, 6, 7, 2)).astype(np.float32)
    check_operator("GridSample", [floats(2, 3, 5, 4), grid], mode=mode, padding_mode=border, align_corners=align_corners, mapped=[0, 1])


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_grid_sample_in_three_dimensions(mode: str) -> None:
    grid = np.random.default_rng(1).uniform(-1.2, 1.2, (2, 3, 4, 5, 3)).astype(np.float32)
    check_operator("GridSample", [floats(2, 3, 5, 4, 3), grid], mode=mode)


@pytest.mark.parametrize("align_corners", [0, 1])
def test_affine_grid(align_corners: int) -> None:
    check_operator("AffineGrid", [floats(2, 2, 3), ints(2, 3, 5, 4)], align_corners=align_corners)
    check_operator("AffineGrid", [floats(2, 3, 4), ints(2, 3, 5, 4, 2)], align_corners=align_corners)


def test_columns_become_an_image() -> None:
    check_operator("Col2Im", [floats(1, 3 * 4, 12), ints(4, 5), ints(2, 2)])
    check_operator("Col2Im", [floats(1, 2 * 9, 4), ints(4, 4), ints(3, 3)], strides=[2, 2], pads=[1, 1, 1, 1])


def test_determinant() -> None:
    check_operator("Det", [floats(2, 3, 3)])


def test_what_is_not_covered_is_named() -> None:
    with pytest.raises(torch_ops.UnknownOperatorError, match="'GridSample' with mode=cubic"):
        torch_ops.apply("GridSample", [torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 1, 1, 3)], {"mode": "cubic"})
    with pytest.raises(torch_ops.UnknownOperatorError, match="'Col2Im'"):
        torch_ops.apply("Col2Im", [torch.zeros(1, 4, 4), torch.tensor([3, 3]), torch.tensor([2, 2])], {"pads": [0, 1, 0, 0]})
