from __future__ import annotations

import numpy as np
import pytest

from converter.calibration.observer import TensorStats
from converter.methods.names import DEFAULT_METHOD, METHOD_NAMES
from converter.methods.problem import Problem
from converter.plan.choice import Constant
from converter.planning.registry import METHODS
from converter.quantization.parameters import QuantParams, fake_quantize


def test_rows_are_the_channels_of_any_axis() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert Constant(array, None, 8).rows().shape == (1, 24)
    assert Constant(array, 1, 8).rows().tolist() == [[*range(i, i + 4), *range(i + 12, i + 16)] for i in (0, 4, 8)]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_every_question(method: str) -> None:
    generator = np.random.default_rng(0)
    sample = generator.standard_normal(500).astype(np.float32)
    constants = {
        ("conv", 1): Constant(generator.standard_normal((6, 3, 3, 3)).astype(np.float32), 0, 7),
        ("gemm", 1): Constant(generator.standard_normal((5, 4)).astype(np.float32), 1, 8),
        ("add", 1): Constant(np.asarray([[1.0, 3.0]], np.float32), None, 8, signed=False),
        ("add", 0): Constant(np.asarray(-2.5, np.float32), None, 8, signed=False),
    }
    dead = TensorStats(0.0, 0.0, np.zeros(9, np.float32), (9,))
    problem = Problem({"x": TensorStats(-3.0, 3.0, sample, (500,)), "dead": dead}, constants, {"x": 8, "dead": 5}, False)
    choice = METHODS[method].choose(problem)
    assert {name: grid.bits for name, grid in choice.tensors.items()} == {"x": 8, "dead": 5}
    assert not any(g.signed or g.axis is not None for g in choice.tensors.values())
    assert (choice.constants["conv", 1].axis, len(choice.constants["conv", 1].scale), choice.constants["conv", 1].bits) == (0, 6, 7)
    assert (choice.constants["gemm", 1].axis, len(choice.constants["gemm", 1].scale)) == (1, 4)
    assert choice.constants["add", 1] == QuantParams((float(np.float32(3 / 255)),), (0,), 8, False)
    assert float(fake_quantize(np.asarray(-2.5, np.float32), choice.constants["add", 0])[()]) == pytest.approx(-2.5, rel=1e-6)


def test_the_default_method_exists() -> None:
    assert DEFAULT_METHOD in METHODS
    assert tuple(METHODS) == METHOD_NAMES
