"""Twin grids against a table written by hand, searches against exhaustive scans, and both halves in integer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from converter.calibration.observer import collect_statistics
from converter.emit.builder import emit
from converter.methods.judging.output_error import LayerReconstruction
from converter.methods.names import MethodName
from converter.methods.published.ptq4vit import GELU_DEPTH, best_twin, gelu_candidates, on_twin, softmax_candidates
from converter.options import Options
from converter.planning.make import Planned, make_plan
from converter.runtime.session import open_session, run_session
from converter.targets import TARGETS
from converter.testing.plans import quantizers_of
from converter.testing.sketch import Sketch, feeds_for, settings_for
from converter.transforms.nonuniform.quantizer import halves, low_copy
from converter.verify.quality import sqnr


def test_the_ranges_behind_a_softmax_by_hand() -> None:
    """Four bits: eight codes below 2^-2 in steps of 1/28, eight up to one in steps of 1/7."""
    twin = softmax_candidates(4, True)[2]
    x = torch.tensor([0.0, 0.017, 0.018, 0.1, 0.2499, 0.25, 0.4, 0.93, 1.0])
    table = [0.0, 0.0, 1 / 28, 3 / 28, 7 / 28, 2 / 7, 3 / 7, 1.0, 1.0]
    np.testing.assert_allclose(on_twin(x, twin).numpy(), table, atol=1e-6)


def test_the_ranges_behind_a_gelu_by_hand() -> None:
    """Four bits: below zero eight steps down to the least value of a GELU, above seven steps of the scale chosen."""
    twin = gelu_candidates(7.0 / 1.2, 4, True)[0]
    x = torch.tensor([-0.17, -0.1, -0.02, 0.0, 0.4, 0.6, 3.4, 9.0])
    step = GELU_DEPTH / 8
    table = [-8 * step, -5 * step, -1 * step, 0.0, 0.0, 1.0, 3.0, 7.0]
    np.testing.assert_allclose(on_twin(x, twin).numpy(), table, atol=1e-5)


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_signed_and_unsigned_codes_stand_for_the_same_numbers(bits: int) -> None:
    x = torch.linspace(-0.2, 1.1, 301)
    for one, other in zip(softmax_candidates(bits, True), softmax_candidates(bits, False), strict=True):
        assert torch.equal(on_twin(x, one), on_twin(x, other))


def test_the_least_value_of_a_gelu() -> None:
    x = torch.linspace(-2.0, 0.0, 200001, dtype=torch.float64)
    assert float(-torch.nn.functional.gelu(x).min()) == pytest.approx(GELU_DEPTH, abs=1e-7)


@pytest.mark.parametrize("sharpness", [1.0, 8.0])
def test_the_twin_grid_chosen_is_the_best_of_a_scan(sharpness: float) -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.softmax(torch.randn(3, 40, 30, generator=generator) * sharpness, -1)
    right = torch.randn(3, 30, 5, generator=generator)
    fisher = torch.rand(3, 40, 5, generator=generator)
    reconstruction = LayerReconstruction(left, right, left @ right, fisher)
    candidates = softmax_candidates(5, True)
    chosen = best_twin([(reconstruction, 0, right)], candidates)
    errors = []
    for twin in candidates:
        x, w = left.numpy().astype(np.float64), right.numpy().astype(np.float64)
        steps = np.where(x < twin.bound, twin.bound, 1.0) / 15
        errors.append(float((fisher.numpy() * (np.clip(np.rint(x / steps), 0, 15) * steps @ w - x @ w) ** 2).sum()))
    assert chosen == candidates[int(np.argmin(errors))]


@pytest.mark.parametrize("target", ["arm64", "x86"])
def test_both_halves_run_in_integer_with_the_same_weights(target: str) -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 12, 12), 8, outputs=32, size=1)
    y = sketch.conv(sketch.add("Gelu", x, name="gelu"), 32, outputs=32, name="behind")
    model = sketch.model(y)
    feeds = feeds_for(model, 6)

    def look(model: ir.Model) -> Any:
        return collect_statistics(model, feeds, threads=1)

    def plan(method: MethodName) -> Planned:
        options = Options(method=method, target=target, placement="all")
        return make_plan(model, look(model), look, feeds, (), TARGETS[target], options, frozenset())

    result = plan("ptq4vit")
    assert {(n, c.kind, c.bound) for n, c in quantizers_of(result.plan).items()} == {("gelu.0", "twin", 0.0)}
    ops = result.plan.ops
    assert ops["gelu"].runs == "float"  # one grid in front of the split would be all that is left of the finer half
    assert "gelu.0" not in result.plan.tensors or result.plan.tensors["gelu.0"].params is None
    assert ops["behind"].runs == ops[low_copy("behind")].runs == "integer"
    assert ops["behind"].constants[1] == ops[low_copy("behind")].constants[1]
    low, high = (result.plan.tensors[half].params for half in halves("gelu.0"))
    assert low is not None and high is not None and low.lowest == pytest.approx(-GELU_DEPTH, rel=1e-3) and high.scale > low.scale
    session = open_session(ir.to_proto(emit(result.model, result.plan, {})), threads=1, settings=settings_for(TARGETS[target]))
    floats = open_session(ir.to_proto(model), threads=1)
    pairs = [tuple(next(iter(run_session(s, f).values())) for s in (floats, session)) for f in feeds_for(model, 3, seed=5)]
    assert sqnr(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])) > 25.0
