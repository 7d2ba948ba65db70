"""Float regions: what the runtime joins stays together, and everything can be computed in the order that is given."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.runtime.session import open_session, run_session
from converter.testing.sketch import TARGET_NAMES, Sketch, emitted, feeds_for, plan_for, settings_for
from converter.torch_backend.float_regions import Region, order_by_regions
from converter.verify.simulation import simulate, simulate_all


def sums_and_norms() -> ir.Model:
    """Float sums, normalizations and gates that the runtime joins, each behind and in front of an integer layer."""
    sketch = Sketch()
    x, bias = sketch.input("x", 1, 12, 24), sketch.normal(24)
    for _ in range(3):
        product = sketch.add("MatMul", sketch.add("Erf", x), sketch.normal(24, 24, scale=0.3))
        total = sketch.add("Add", x, sketch.add("Add", product, bias))
        x = sketch.add("LayerNormalization", total, sketch.normal(24), sketch.normal(24))
        x = sketch.add("MatMul", x, sketch.normal(24, 24, scale=0.3))
        x = sketch.silu(sketch.add("Erf", x))
    return sketch.model(x)


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("cheapest", [True, False])
def test_the_simulation_and_the_emitted_model_give_the_same_bits(target: str, cheapest: bool) -> None:
    planned = plan_for(sums_and_norms(), target, cheapest=cheapest)
    session = open_session(emitted(planned), threads=1, settings=settings_for(planned.target))
    for feed in feeds_for(planned.model, 4, seed=7):
        (wanted,), (got,) = run_session(session, feed).values(), simulate(planned.model, planned.plan, feed, {}).values()
        np.testing.assert_array_equal(got, wanted)


def test_operators_that_the_runtime_joins_round_otherwise_one_by_one() -> None:
    """Without this the test above would say nothing."""
    model = sums_and_norms()
    (feed,) = feeds_for(model, 1)
    (joined,) = simulate(model, None, feed, {}).values()
    assert (simulate_all(model, None, feed, {})[str(model.graph.outputs[0].name)] != joined).any()


def test_a_sum_is_joined_to_a_convolution_as_in_the_whole_model() -> None:
    """Its other operand comes past an integer layer from a convolution, in blocks of channels where the processor has kernels for these."""
    sketch = Sketch()
    start = sketch.conv(sketch.input("x", 1, 16, 12, 12), 16, name="start")
    inner = sketch.conv(sketch.conv(start, 16, name="integer"), 16, name="inner")
    model = sketch.model(sketch.conv(sketch.add("Add", inner, start, name="sum"), 16, name="last"))
    planned = plan_for(model, integer={"integer"})
    last = [item for item in order_by_regions(model, lambda n: n.name != "integer") if isinstance(item, Region)][-1]
    assert [n.name for n in last.context] == ["start"] and [n.name for n in last.nodes] == ["inner", "sum", "last"]
    session = open_session(emitted(planned), threads=1, settings=settings_for(planned.target))
    for feed in feeds_for(model, 4, seed=7):
        (wanted,), (got,) = run_session(session, feed).values(), simulate(model, planned.plan, feed, {}).values()
        np.testing.assert_array_equal(got, wanted)


@given(st.data())
def test_every_node_comes_once_and_after_what_it_reads(data: st.DataObject) -> None:
    sketch = Sketch()
    values = [sketch.input("x", 2)]
    for _ in range(data.draw(st.integers(1, 12))):
        values.append(sketch.add("Add", *data.draw(st.lists(st.sampled_from(values), min_size=2, max_size=2))))
    model = sketch.model(*data.draw(st.lists(st.sampled_from(values[1:]), min_size=1, unique=True)))
    nodes = list(model.graph)
    floats = set(data.draw(st.lists(st.sampled_from(nodes), unique=True)))
    known = set(model.graph.inputs)
    seen: list[ir.Node] = []
    for item in order_by_regions(model, floats.__contains__):
        members = item.nodes if isinstance(item, Region) else (item,)
        assert known.issuperset(v for v in item.inputs if v is not None)
        assert all((n in floats) == isinstance(item, Region) for n in members)
        known.update(item.outputs)
        seen += members
    assert sorted(seen, key=nodes.index) == nodes
    assert known.issuperset(model.graph.outputs)


def test_a_sum_is_in_the_region_of_the_only_operator_that_reads_it() -> None:
    """It could be computed long before, beside the first layer."""
    sketch = Sketch()
    x = sketch.input("x", 4)
    total = sketch.add("Add", x, x, name="sum")
    late = sketch.add("Abs", sketch.add("Neg", x, name="layer"), name="behind")
    model = sketch.model(sketch.add("Mul", total, late, name="last"))
    order = order_by_regions(model, lambda n: n.name != "layer")
    regions = [{str(n.name) for n in item.nodes} for item in order if isinstance(item, Region)]
    assert regions == [{"sum", "behind", "last"}]
