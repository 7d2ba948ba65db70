"""Folding changes constants and ranges, never what the model computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.calibration.observer import collect_statistics
from converter.canonicalise import canonicalise
from converter.graph.queries import constant
from converter.runtime.session import Feed, open_session, run_session
from converter.testing.equalization import (
    BETWEEN,
    MAKERS,
    READERS,
    C,
    attention,
    difference,
    in_two_parts,
    normalised,
    random_equalizations,
    to_tokens,
)
from converter.testing.models import hybrid_model
from converter.testing.sketch import Sketch, feeds_for
from converter.transforms.equalization.apply import Equalization, apply_equalizations, inserted_factors, scaled_name
from converter.transforms.equalization.find import find_sites


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(MAKERS)), st.sampled_from(sorted(BETWEEN)), st.sampled_from(sorted(READERS)), st.integers(0, 99))
def test_equalizing_every_site_leaves_the_outputs(maker: str, between: str, reader: str, seed: int) -> None:
    sketch = Sketch(seed)
    x = sketch.add("Tanh", sketch.input("x", 1, C, 6, 6))
    model = sketch.model(READERS[reader](sketch, BETWEEN[between](sketch, MAKERS[maker](sketch, x))))
    equalizations = random_equalizations(model, seed)
    assert any(site.kind == "cross_layer" and site.channels == C for site in find_sites(model).values())
    assert difference(model, apply_equalizations(model, find_sites(model), equalizations)) < 1e-5


@pytest.mark.parametrize("spelling", ["apart", "split", "gather", "by head"])
def test_attention_has_the_same_sites_however_it_is_spelled(spelling: str) -> None:
    sketch = Sketch()
    x = normalised(sketch, sketch.input("x", 1, 9, C))
    model = sketch.model(sketch.add("Add", x, attention(sketch, sketch.add("Mul", x, sketch.constant(0.9)), spelling)))
    sites = find_sites(model)
    assert [(s.kind, s.channels, s.shift) for s in sites.values()] == [("query_key", C, False), ("cross_layer", C, True)]
    value = list(sites.values())[1]
    assert value.axis == 2
    assert difference(model, apply_equalizations(model, sites, random_equalizations(model))) < 1e-5


def test_a_convolution_in_front_of_another_by_hand() -> None:
    """y = relu(2 x + 1), z = 3 y + 5 y' with the channels y divided by 4 and y' by 8."""
    sketch = Sketch()
    weight, bias = sketch.constant([[[[2.0]]], [[[6.0]]]]), sketch.constant([1.0, 2.0])
    y = sketch.add("Relu", sketch.add("Conv", sketch.input("x", 1, 1, 2, 2), weight, bias, name="first"), name="y")
    model = sketch.model(sketch.add("Conv", y, sketch.constant([[[[3.0]], [[5.0]]]]), name="second"))
    equalized = apply_equalizations(model, find_sites(model), {"y.0": Equalization((4.0, 8.0))})
    arrays = {str(n.name): [constant(v) for v in n.inputs[1:]] for n in equalized.graph}
    assert [a.reshape(-1).tolist() for a in arrays["first"] if a is not None] == [[0.5, 0.75], [0.25, 0.25]]
    assert [a.reshape(-1).tolist() for a in arrays["second"] if a is not None] == [[12.0, 40.0]]


def test_a_shift_behind_a_normalization_by_hand() -> None:
    """RepQ-ViT, equations 12 to 14: gamma / s, (beta - m) / s, s W and b + m W."""
    sketch = Sketch()
    x = sketch.add("LayerNormalization", sketch.input("x", 3, 2), sketch.constant([2.0, 3.0]), sketch.constant([0.5, 1.0]), name="norm")
    model = sketch.model(sketch.add("Gemm", x, sketch.constant([[1.0], [10.0]]), sketch.constant([0.25]), name="linear"))
    (site,) = find_sites(model).values()
    assert (site.tensor, site.shift, site.axis) == ("norm.0", True, 1)
    equalized = apply_equalizations(model, find_sites(model), {"norm.0": Equalization((2.0, 4.0), (1.0, -1.0))})
    gamma, beta = (constant(v) for v in equalized.graph.node("norm").inputs[1:])
    weight, bias = (constant(v) for v in equalized.graph.node("linear").inputs[1:])
    assert gamma is not None and beta is not None and weight is not None and bias is not None
    assert (gamma.tolist(), beta.tolist()) == ([1.0, 0.75], [-0.25, 0.5])
    assert (weight.reshape(-1).tolist(), bias.tolist()) == ([2.0, 40.0], [0.25 + 1.0 - 10.0])


def test_rescaled_tensors_are_what_the_site_says() -> None:
    """Every member divided, or multiplied, by the scales of its channels, after the shift where it is shifted."""
    sketch = Sketch()
    x = to_tokens(sketch, in_two_parts(sketch, sketch.conv(sketch.input("x", 1, C, 3, 3), C)))
    model = sketch.model(attention(sketch, normalised(sketch, x), "split"))
    sites, equalizations = find_sites(model), random_equalizations(model)
    equalized = apply_equalizations(model, sites, equalizations)
    (feed,) = feeds_for(model, 1)
    lacking = {
        f"{absorption.node}.0" for site in sites.values() for absorption in site.absorptions if absorption.bias_node != absorption.node
    }
    members = {name for site in sites.values() for name in site.tensors} - lacking
    assert len(members) > 10
    before, after = (_values(m, sorted(members), feed) for m in (model, equalized))
    for name in members:
        expected = before[name].astype(np.float64)
        for site in sites.values():
            for member in (m for m in site.members if m.tensor == name):
                equalization = equalizations[site.tensor]
                if member.shifted:
                    expected = expected - np.where(member.channels >= 0, np.asarray(equalization.shift)[member.channels], 0.0)
                expected = expected / np.where(member.channels >= 0, np.asarray(equalization.scale)[member.channels] ** member.powers, 1.0)
        np.testing.assert_allclose(after[name], expected, atol=1e-5 * float(np.abs(expected).max()))


def _values(model: ir.Model, names: list[str], feed: Feed) -> Feed:
    proto = ir.to_proto(model)
    proto.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    return run_session(open_session(proto, threads=1, optimise=False), feed)


def test_a_constant_that_two_operators_read_is_copied() -> None:
    sketch = Sketch()
    x = sketch.input("x", 1, C, 4, 4)
    weight = sketch.normal(C, C, 1, 1)
    y = sketch.add("Conv", sketch.add("Conv", x, weight, name="a"), weight, name="b")
    model = sketch.model(sketch.add("Sigmoid", sketch.add("Conv", y, weight, name="c")))
    equalizations = random_equalizations(model)
    assert len(equalizations) == 3
    assert difference(model, apply_equalizations(model, find_sites(model), equalizations)) < 1e-5


def test_the_model_given_is_left_as_it_is_and_names_stay() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.conv(sketch.add("Relu", sketch.conv(sketch.input("x", 1, 4, 4, 4), 4)), 4))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    equalized = apply_equalizations(model, find_sites(model), random_equalizations(model, kinds=("cross_layer",)))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    for names in (
        lambda m: [n.name for n in m.graph],
        lambda m: [o.name for n in m.graph for o in n.outputs],
        lambda m: list(m.graph.initializers),
    ):
        assert names(equalized) == names(model)  # type: ignore[no-untyped-call]


def test_an_inserted_multiplication_serves_the_convolutions_only() -> None:
    sketch = Sketch()
    x = sketch.silu(sketch.conv(sketch.input("x", 1, 4, 6, 6), 4))
    model = sketch.model(sketch.add("Add", sketch.add("Add", sketch.conv(x, 4), sketch.conv(x, 4, group=4)), x))
    sites = find_sites(model)
    assert {name: site.kind for name, site in sites.items()} == {"x": "per_channel_quantize", x: "per_channel_quantize"}
    equalized = apply_equalizations(model, sites, {x: Equalization((1.0, 2.0, 4.0, 8.0))})
    inserted = equalized.graph.node(f"{scaled_name(x)}_Mul")
    assert inserted.outputs[0].name == f"{x}_scaled"
    assert [n.op_type for n, _ in ((use.node, use.idx) for use in inserted.outputs[0].uses())] == ["Conv", "Conv"]
    factors = inserted_factors(inserted)
    assert factors is not None and factors.tolist() == [1.0, 0.5, 0.25, 0.125]
    assert inserted_factors(equalized.graph.node(0)) is None
    assert difference(model, equalized) < 1e-5
    made: set[str | None] = {"x", *equalized.graph.initializers}
    for node in equalized.graph:  # in an order in which it can run
        assert {v.name for v in node.inputs if v is not None} <= made
        made.update(o.name for o in node.outputs)


@pytest.mark.parametrize(
    ("equalizations", "complaint"),
    [
        ({"nowhere": Equalization((1.0,))}, "tensor 'nowhere' has no site"),
        ({"y.0": Equalization((1.0,) * 3)}, "'y.0' has 3 scales for 4 channels"),
        ({"y.0": Equalization((1.0, 1.0, 1.0, 0.0))}, "not a positive number"),
        ({"y.0": Equalization((1.0, 1.0, 1.0, float("nan")))}, "not a positive number"),
        ({"y.0": Equalization((1.0,) * 4, (0.0,) * 3)}, "'y.0' has 3 shifts for 4 channels"),
        ({"y.0": Equalization((1.0,) * 4, (float("inf"),) * 4)}, "a shift that is not a number"),
        ({"x": Equalization((1.0,) * 4, (0.0,) * 4)}, "'x' has a shift, which is not exact there"),
        ({"y.0": Equalization((1e-39,) * 4)}, "constant input 1 of operator 'y' would leave the range of numbers"),
    ],
)
def test_equalizations_that_do_not_fit_are_refused(equalizations: dict[str, Equalization], complaint: str) -> None:
    sketch = Sketch()
    y = sketch.conv(sketch.input("x", 1, 4, 4, 4), 4, name="y")
    model = sketch.model(sketch.conv(y, 4, size=1))
    with pytest.raises(ValueError, match=complaint):
        apply_equalizations(model, find_sites(model), equalizations)


def test_equalizations_found_at_one_size_hold_at_others() -> None:
    sample = {"image": np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)}
    model = canonicalise(hybrid_model(dynamic_batch=True, dynamic_size=True), [sample]).model
    shapes = {name: stats.shape for name, stats in collect_statistics(model, [sample], threads=1).tensors.items()}
    sites = find_sites(model, shapes)
    equalizations = {
        name: Equalization(tuple(np.geomspace(0.1, 10.0, s.channels)), (0.5,) * s.channels if s.shift else ()) for name, s in sites.items()
    }
    assert {site.kind for site in sites.values()} == {"cross_layer", "query_key", "per_channel_quantize"}
    equalized = apply_equalizations(model, sites, equalizations)
    for shape in [(1, 3, 32, 32), (3, 3, 48, 16)]:
        feed = {"image": np.random.default_rng(1).random(shape, dtype=np.float32)}
        before, after = (run_session(open_session(ir.to_proto(m), threads=1, optimise=False), feed)["logits"] for m in (model, equalized))
        np.testing.assert_allclose(after, before, atol=1e-5 * float(np.abs(before).max()))
