"""Which norms become plain: told by ranges, and by what the layers behind make of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from converter.options import Options
from converter.pipeline import convert
from converter.plan.serialization import plan_from_json
from converter.planning.plain_norms import error_ratio, harmless_norms
from converter.testing.sketch import Sketch, shapes_of
from converter.transforms.plain_norms.sites import find_norms

CHANNELS = 8


def transformer(*, outlier: float = 0.0) -> ir.Model:
    """Layers around a norm, of which the first channel is far off by that much, which the norm's own factor takes back."""
    s = Sketch(0)
    far, factors = np.zeros(CHANNELS), np.ones(CHANNELS)
    far[0], factors[0] = outlier, 1.0 / (1.0 + outlier)
    x = s.add("MatMul", s.input("x", 1, 64, CHANNELS), s.normal(CHANNELS, CHANNELS))
    x = s.add("Add", x, s.constant(far))
    y = s.add("LayerNormalization", x, s.constant(factors), s.constant(np.zeros(CHANNELS)), axis=-1, name="norm")
    return s.model(s.add("Add", s.add("MatMul", y, s.normal(CHANNELS, 16)), s.normal(16)))


def feeds() -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    return [{"x": generator.standard_normal((1, 64, CHANNELS)).astype(np.float32)} for _ in range(4)]


def test_a_ratio_by_hand() -> None:
    """Ranges 4 and 1 under weights of power 1 and 3: (16 + 3 * 16) / (16 + 3 * 1)."""
    model = transformer()
    (norm,) = find_norms(model, shapes_of(model)).values()
    two = replace(norm, equalization=replace(norm.equalization, scale=(1.0, 1.0), shift=()), power=np.asarray([1.0, 3.0]))
    assert error_ratio(np.asarray([[4.0, 1.0], [0.0, 0.5]]), two) == pytest.approx(64 / 19)


@pytest.mark.parametrize(("outlier", "plain"), [(0.0, ("norm",)), (60.0, ())])
def test_a_norm_keeps_factors_that_tame_an_outlier(outlier: float, plain: tuple[str, ...]) -> None:
    model = transformer(outlier=outlier)
    assert harmless_norms(model, find_norms(model, shapes_of(model)), feeds()) == plain


def test_a_plan_carries_them_and_can_be_used_again(tmp_path: Path) -> None:
    model, data = tmp_path / "model.onnx", tmp_path / "x.npz"
    ir.save(transformer(), model)
    np.savez(data, x=np.concatenate([feed["x"] for feed in feeds()]))
    options = Options(calib=data, method="minmax", threads=1)
    convert(model, tmp_path / "first.onnx", options, plan_out=tmp_path / "plan.json")
    plan = plan_from_json((tmp_path / "plan.json").read_text(), tmp_path / "plan.json")
    assert [transform.key for transform in plan.transforms] == ["plain_norms"]
    convert(model, tmp_path / "second.onnx", Options(calib=data, plan_in=tmp_path / "plan.json", threads=1))
    assert (tmp_path / "second.onnx").read_bytes() == (tmp_path / "first.onnx").read_bytes()
