"""Plain norms: the network computes the same, and what must not change does not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.graph.queries import attributes
from converter.runtime.session import open_session, run_session
from converter.targets import find_target
from converter.testing.sketch import Sketch, feeds_for, shapes_of
from converter.transforms.plain_norms.sites import cheaper_norms, find_norms
from converter.transforms.plain_norms.transform import PlainNorms
from converter.transforms.transform import GraphFacts

CHANNELS = 12


def tokens(
    *, count: int = 5, batch: int = 2, epsilon: float = 1e-5, low: float = 0.3, offset: bool = True, bias: bool = True, seed: int = 0
) -> ir.Model:
    """Tokens [batch, count, CHANNELS], normalized for two layers, one of which reads them as a matrix."""
    s = Sketch(seed)
    x = s.input("x", batch, count, CHANNELS)
    factors = s.constant(s.generator.uniform(low, 2.0, CHANNELS))
    operands = [factors, s.normal(CHANNELS)] if offset else [factors]
    y = s.add("LayerNormalization", x, *operands, axis=-1, epsilon=epsilon, name="norm")
    first = s.add("MatMul", y, s.normal(CHANNELS, 4))
    first = s.add("Add", first, s.normal(4)) if bias else first
    flat = s.add("Reshape", y, s.constant([batch * count, CHANNELS], np.int64))
    return s.model(first, s.add("Gemm", flat, s.normal(CHANNELS, 3)))


def made_plain(model: ir.Model, excluded: frozenset[str] = frozenset()) -> ir.Model:
    return PlainNorms(("norm",)).apply(model, GraphFacts(shapes_of(model), excluded))


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 9), batch=st.integers(1, 3), exponent=st.floats(-7.0, -1.0), offset=st.booleans(), seed=st.integers(0, 99))
def test_it_computes_the_same(count: int, batch: int, exponent: float, offset: bool, seed: int) -> None:
    model = tokens(count=count, batch=batch, epsilon=10.0**exponent, offset=offset, seed=seed)
    plain = made_plain(model)
    (feed,) = feeds_for(model, 1, seed=seed)
    wanted, got = (run_session(open_session(ir.to_proto(m), threads=1), feed) for m in (model, plain))
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=3e-6 * np.abs(value).max())


def test_the_kernel_over_rows_stands_in_its_place_under_its_name() -> None:
    model = tokens(epsilon=1e-3)
    plain = made_plain(model)
    (norm,) = [node for node in plain.graph if node.name == "norm"]
    assert norm.op_type == "InstanceNormalization"
    assert attributes(norm)["epsilon"] == pytest.approx(1e-3)
    assert norm.outputs[0].name == "norm.0"
    assert [str(n.name) for n in plain.graph] == [str(n.name) for n in model.graph]


def without_a_place() -> dict[str, ir.Model]:
    s = Sketch(0)
    x, factors = s.input("x", 2, 5, CHANNELS), s.constant(np.full(CHANNELS, 0.5))
    y = s.add("LayerNormalization", x, factors, axis=-1, name="norm")
    also_read = s.model(s.add("MatMul", y, s.normal(CHANNELS, 4)), s.add("Softmax", y))
    s = Sketch(0)
    x, factors = s.input("x", 5, CHANNELS), s.constant(np.full(CHANNELS, 0.5))
    matrix = s.model(s.add("MatMul", s.add("LayerNormalization", x, factors, axis=-1, name="norm"), s.normal(CHANNELS, 4)))
    return {
        "a factor is not positive": tokens(low=-1.0),
        "an offset has no bias to go to": tokens(bias=False),
        "something else reads it": also_read,
        "there are no tokens": matrix,
    }


@pytest.mark.parametrize("why", list(without_a_place()))
def test_there_is_no_site_where(why: str) -> None:
    model = without_a_place()[why]
    assert find_norms(model, shapes_of(model)) == {}
    with pytest.raises(ValueError, match="'norm' is no normalization"):
        made_plain(model)


def test_there_is_no_site_where_a_layer_behind_is_excluded() -> None:
    model = tokens()
    layer = next(str(node.name) for node in model.graph if node.op_type == "MatMul")
    assert set(find_norms(model, shapes_of(model))) == {"norm"}
    assert find_norms(model, shapes_of(model), {layer}) == {}


def test_rows_of_ordinary_width_are_cheaper_on_arm64() -> None:
    model = tokens(count=64)
    assert cheaper_norms(model, shapes_of(model), find_target("arm64")) == {"norm"}
