"""Convolutions of an image as ones of four columns at once: the same codes as the other form, on borders too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.forms.convolved import takes_columns
from converter.runtime.session import open_session, run_session
from converter.testing.sketch import TARGET_NAMES, Planned, Sketch, emitted, kernels_of, plan_for, settings_for
from converter.verify.simulation import simulate

FORM = "column_convolution"


def stem(behind: str, *, channels: int = 3, size: tuple[int, int] = (3, 3), pads: tuple[int, ...] = (1, 1, 1, 1), **attrs: Any) -> ir.Model:
    """A convolution ``it`` of an image of 10 x 12, and what is behind it."""
    s = Sketch(2)
    weight, bias = s.normal(5, channels, *size), s.normal(5)
    x = s.add("Conv", s.input("x", 1, channels, 10, 12), weight, bias, name="it", pads=pads, **{"strides": [2, 2], **attrs})
    return s.model(s.add(behind, x, name="behind"))


def in_form(planned: Planned, form: str) -> Planned:
    ops = planned.plan.ops
    return replace(planned, plan=replace(planned.plan, ops={**ops, "it": replace(ops["it"], form=form)}))


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("behind", ["Sigmoid", "Relu"])
@pytest.mark.parametrize(
    ("size", "attrs"),
    [((3, 3), {}), ((3, 3), {"pads": (1, 1, 1, 0)}), ((2, 3), {"pads": (0, 1, 0, 1), "strides": [1, 2]}), ((3, 3), {"channels": 1})],
    ids=["usual", "no border on the right", "other rows", "one channel"],
)
def test_it_gives_the_same_codes(size: tuple[int, int], attrs: dict[str, Any], behind: str, target: str, tmp_path: Path) -> None:
    """A Relu is part of either form."""
    planned = plan_for(stem(behind, size=size, **attrs), target)
    assert planned.plan.ops["it"].writes == ("fused" if behind == "Relu" else "codes")
    plain, other = in_form(planned, "weighted"), in_form(planned, FORM)
    shape = tuple(int(n) for n in planned.model.graph.inputs[0].shape or ())  # type: ignore[arg-type]
    feed = {"x": np.random.default_rng(5).uniform(-4.0, 4.0, shape).astype(np.float32)}
    found = [
        next(iter(run_session(open_session(emitted(each), threads=1, settings=settings_for(each.target)), feed).values()))
        for each in (plain, other)
    ]
    np.testing.assert_array_equal(found[1], found[0])
    (simulated,) = simulate(planned.model, other.plan, feed).values()
    np.testing.assert_array_equal(found[1], simulated)
    kernels = kernels_of(emitted(other), planned.target, tmp_path)
    assert kernels["QLinearConv"] == 1 and kernels["Transpose"] <= 2 and "Conv" not in kernels


@pytest.mark.parametrize(
    "attrs",
    [{"channels": 5}, {"size": (3, 2)}, {"pads": (1, 0, 1, 0)}, {"strides": [2, 1]}, {"dilations": [1, 2], "pads": (1, 1, 1, 1)}],
    ids=str,
)
def test_others_do_not_have_it(attrs: dict[str, Any]) -> None:
    assert takes_columns(next(iter(stem("Sigmoid").graph)))
    assert not takes_columns(next(iter(stem("Sigmoid", **attrs).graph)))


@pytest.mark.parametrize(("factors", "taken"), [((3, 1, 1), False), ((1, 1, 1), True)])
def test_what_has_a_factor_for_each_channel_is_left_alone(factors: tuple[int, ...], taken: bool) -> None:
    """It becomes a Q with a scale for each channel, whose codes nothing may move."""
    s = Sketch(2)
    x = s.add("Mul", s.input("x", 1, 3, 10, 12), s.normal(*factors))
    model = s.model(s.add("Sigmoid", s.add("Conv", x, s.normal(5, 3, 3, 3), pads=(1, 1, 1, 1), strides=[2, 2], name="it")))
    assert takes_columns(next(node for node in model.graph if node.name == "it")) == taken
