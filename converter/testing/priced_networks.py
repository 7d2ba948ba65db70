"""Random networks with the prices of real targets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx_ir as ir

from converter.calibration.observer import CalibrationStatistics, TensorStats
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.partition.cost_model import predict
from converter.partition.cut_graph import cut
from converter.partition.integer_forms import offer
from converter.targets import TARGETS, Target
from converter.testing.sketch import Sketch, shapes_of

_CHANNELS, _SIDE = 16, (4, 8, 14, 28)

_CONVOLUTIONS = ("Conv", "PointwiseConv", "DepthwiseConv")

_LAYERS = (*_CONVOLUTIONS, "Relu", *_CONVOLUTIONS, "Relu", "Sigmoid", "Add", "Mul", "Linear", "MatMul", "Softmax", "Transpose", "Concat")

TOO_DEAR = (1742, 7439, 8165, 8291, 8461)
"""Seeds of networks for which a flow in floating point, cut where it equals a capacity, gives placements up to a quarter too dear."""


@dataclass(frozen=True)
class Priced:
    """A random network on a real target, and what errors cost there."""

    model: ir.Model
    target: Target
    seen: CalibrationStatistics
    offers: dict[str, SupportedForm | UnsupportedForm]
    penalty: Mapping[str, float]
    noise: Mapping[str, float]


def random_network(seed: int) -> Priced:
    """Up to nine layers and operators on maps of 16 channels; the same for the same seed."""
    generator = np.random.default_rng(seed)
    side = int(generator.choice(_SIDE))
    sketch = Sketch(seed)
    made = [sketch.input("x", 1, _CHANNELS, side, side)]
    for index in range(generator.integers(2, 10)):
        made.append(_layer(sketch, str(generator.choice(_LAYERS)), f"op{index}", made, generator))
    read = {name for node in sketch.nodes for name in node.input}
    model = sketch.model(*[name for name in made[1:] if name not in read or generator.random() < 0.1])
    shapes = shapes_of(model)
    seen = CalibrationStatistics(
        {name: TensorStats(-1.0, 1.0, np.linspace(-1, 1, 9, dtype=np.float32), shape) for name, shape in shapes.items()}, 1
    )
    target = list(TARGETS.values())[seed % len(TARGETS)]
    offers = offer(model, seen, target, activation_bits=8, weight_bits=8)
    typical = predict(model, None, {}, shapes, target).total / 20
    errors = typical * 10.0 ** generator.uniform(-9.0, 1.0, (2, len(shapes))) * (seed % 2)  # every other network has none
    penalty = {name: float(error) for name, error in zip(offers, errors[0], strict=False) if isinstance(offers[name], SupportedForm)}
    return Priced(model, target, seen, offers, penalty, dict(zip(shapes, map(float, errors[1]), strict=True)))


def _layer(sketch: Sketch, kind: str, name: str, made: list[str], generator: np.random.Generator) -> str:
    """One more operator, which reads what was made last or before; all tensors but those inside have the same shape."""
    x, y = made[-1] if generator.random() < 0.7 else str(generator.choice(made)), str(generator.choice(made))
    if kind == "Transpose":
        return sketch.add(kind, sketch.add("Sigmoid", x, name=f"{name}_before"), perm=[0, 1, 3, 2], name=name)
    if kind == "Linear":
        side = sketch.inputs[0].type.tensor_type.shape.dim[-1].dim_value
        return sketch.add("MatMul", x, sketch.normal(side, side), name=name)
    if kind == "Concat":
        return sketch.conv(sketch.add(kind, x, y, axis=1, name=f"{name}_joined"), 2 * _CHANNELS, outputs=_CHANNELS, size=1, name=name)
    if kind in _CONVOLUTIONS:
        size, group = (1 if kind == "PointwiseConv" else 3), (_CHANNELS if kind == "DepthwiseConv" else 1)
        return sketch.conv(x, _CHANNELS, size=size, group=group, name=name)
    return sketch.add(kind, *([x, y] if kind in ("Add", "Mul", "MatMul") else [x]), name=name)


@cache
def digest() -> str:
    """Of many partitions."""
    cases = [random_network(seed) for seed in (*TOO_DEAR, *range(100))]
    found = [sorted(cut(case.model, case.offers, case.seen, case.target, case.penalty, case.noise)) for case in cases]
    return hashlib.sha256(repr(found).encode()).hexdigest()
