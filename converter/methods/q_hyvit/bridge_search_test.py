"""The choice inside a bridge block, against the same arithmetic in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from converter.methods.q_hyvit.bridge_search import search_block
from converter.quantization.parameters import QuantParams, fake_quantize
from converter.sensitivity.context import AnalysisContext, QuantizedEdge, ReconstructionBlock
from converter.testing.sketch import Sketch
from converter.torch_backend.network import network_of

Array = npt.NDArray[Any]
SAMPLES = 6
GRIDS = [QuantParams((scale,), (0,)) for scale in (0.4, 0.02, 0.05, 0.002)]
"""Too coarse, right, nearly right, and so fine that most is cut off; the layers are said to like the worst one best."""


def context(seed: int) -> tuple[AnalysisContext, dict[str, Array]]:
    """x -> first -> second -> y, two linear layers that make up the block, and a third one behind it."""
    s = Sketch(seed)
    x = s.input("x", 5, 16)
    hidden = s.add("MatMul", x, s.normal(16, 16, scale=0.25), name="first")
    y = s.add("MatMul", hidden, s.normal(16, 16, scale=0.25), name="second")
    network = network_of(s.model(s.add("MatMul", y, s.normal(16, 4), name="third")))
    values = np.random.default_rng(seed).normal(size=(SAMPLES, 5, 16)).astype(np.float32)
    quantized_edges = {("first", 0): QuantizedEdge(x, 1.0), ("second", 0): QuantizedEdge(hidden, 1.0), ("third", 0): QuantizedEdge(y, 1.0)}
    weights = {step.name: network.constants[step.inputs[1]].numpy() for step in network.steps}
    return AnalysisContext(network, {x: torch.from_numpy(values)}, quantized_edges, (), (), 0), {**weights, "x": values}


def expected(arrays: Mapping[str, Array], fisher: Array) -> dict[str, QuantParams]:
    """The grid of x that leaves y nearest, then that of what is between the layers, with x on the grid that it got."""

    def error(y: Array) -> float:
        return float((fisher * np.square(y - arrays["x"] @ arrays["first"] @ arrays["second"])).sum())

    best_x = min(GRIDS, key=lambda g: error(fake_quantize(arrays["x"], g) @ arrays["first"] @ arrays["second"]))
    hidden = fake_quantize(arrays["x"], best_x) @ arrays["first"]
    return {"x": best_x, "first.0": min(GRIDS, key=lambda g: error(fake_quantize(hidden, g) @ arrays["second"]))}


@pytest.mark.parametrize("seed", range(4))
def test_each_activation_gets_the_grid_that_leaves_the_blocks_output_nearest(seed: int) -> None:
    asked, arrays = context(seed)
    fisher = np.random.default_rng(9).random((SAMPLES, 5, 16)).astype(np.float32)
    ranked = dict.fromkeys(("x", "first.0", "second.0"), GRIDS)
    block = ReconstructionBlock(("first", "second"), ("second.0",))
    start = dict.fromkeys(ranked, GRIDS[0])
    found = search_block(asked, block, {"second.0": torch.from_numpy(fisher)}, ranked, start, {})
    assert found == expected(arrays, fisher)
    assert GRIDS[0] not in found.values(), "the layers' own favourite is not the block's"


def test_quantized_weights_come_before_the_activation_that_is_judged() -> None:
    """What is between the layers is judged with the first layer's weights as they will be stored: here they are all zero."""
    asked, _ = context(0)
    (weight,) = [step.inputs[1] for step in asked.network.steps if step.name == "first"]
    zero = {weight: torch.zeros(16, 16)}
    block, ranked = ReconstructionBlock(("first", "second"), ("second.0",)), {"x": GRIDS[1:2], "first.0": GRIDS}
    found = search_block(asked, block, {"second.0": torch.ones(SAMPLES, 5, 16)}, ranked, {"x": GRIDS[1], "first.0": GRIDS[1]}, zero)
    assert found["first.0"] == GRIDS[0], "with nothing to tell them apart the first one stays"
