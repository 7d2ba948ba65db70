"""Folding changes constants and ranges, never what the model computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.calibration.observer import observe
from converter.canonicalise import canonicalise
from converter.graph.queries import constant
from converter.runtime.session import Feed, open_session, run_session
from converter.testing.models import hybrid_model
from converter.testing.sketch import Sketch, feeds_for
from converter.transforms.equalization.apply import Fold, apply_folds, inserted_factors, scaled_name
from converter.transforms.equalization.find import find_sites

C = 8
Part = Callable[[Sketch, str], str]


def random_folds(model: ir.Model, seed: int = 0, kinds: tuple[str, ...] = ("fold", "balance", "inserted")) -> dict[str, Fold]:
    """A fold for every site: scales from 0.1 to 10, and shifts where they are exact."""
    generator = np.random.default_rng(seed)
    return {
        name: Fold(
            tuple(np.exp(generator.uniform(np.log(0.1), np.log(10.0), site.channels))),
            tuple(generator.standard_normal(site.channels)) if site.shift else (),
        )
        for name, site in find_sites(model).items()
        if site.kind in kinds
    }


def difference(model: ir.Model, folded: ir.Model) -> float:
    """Largest difference between the outputs, relative to the largest output; by the runtime without optimisations."""
    worst = 0.0
    for feed in feeds_for(model, 2, seed=7):
        before, after = (run_session(open_session(ir.to_proto(m), threads=1, optimise=False), feed) for m in (model, folded))
        worst = max(worst, *(float(np.abs(before[n] - after[n]).max() / np.abs(before[n]).max()) for n in before))
    return worst


def shuffle(s: Sketch, x: str) -> str:
    x = s.add("Reshape", x, s.constant([1, 2, C // 2, 6, 6], np.int64))
    return s.add("Reshape", s.add("Transpose", x, perm=[0, 2, 1, 3, 4]), s.constant([1, C, 6, 6], np.int64))


def to_map(s: Sketch, x: str) -> str:
    return s.add("Reshape", s.add("Transpose", x, perm=[0, 2, 1]), s.constant([1, C, 6, 6], np.int64))


def to_tokens(s: Sketch, x: str) -> str:
    return s.add("Transpose", s.add("Reshape", x, s.constant([1, C, -1], np.int64)), perm=[0, 2, 1])


def resized_and_back(s: Sketch, x: str) -> str:
    larger = s.add("Resize", x, "", s.constant([1.0, 1.0, 2.0, 2.0]), mode="linear")
    return s.add("MaxPool", larger, kernel_shape=[2, 2], strides=[2, 2])


def in_two_parts(s: Sketch, x: str) -> str:
    """Upper half of the channels first."""
    left, right = s.split("Split", x, outputs=2, axis=1, num_outputs=2)
    return s.add("Concat", right, s.add("Relu", left), axis=1)


def residual(s: Sketch, x: str) -> str:
    return s.add("Add", x, s.conv(s.silu(s.conv(x, C, size=1)), C))


def gated(s: Sketch, x: str) -> str:
    gate = s.add("Sigmoid", s.conv(s.add("GlobalAveragePool", x), C, size=1))
    return s.add("Max", s.add("Mul", x, gate), s.add("Mul", x, s.add("Sigmoid", s.add("Sigmoid", gate))))


def normalised(s: Sketch, x: str) -> str:
    return s.add("LayerNormalization", x, s.normal(C), s.normal(C))


def gemm(s: Sketch, x: str, alpha: float = 1.0, beta: float = 1.0) -> str:
    rows = s.add("Reshape", to_tokens(s, x), s.constant([36, C], np.int64))
    rows = s.add("Gemm", rows, s.normal(C, C), s.normal(C), transB=1, alpha=alpha, beta=beta)
    return to_map(s, s.add("Reshape", rows, s.constant([1, 36, C], np.int64)))


MAKERS: dict[str, Part] = {
    "gemm": gemm,
    "gemm with factors": lambda s, x: gemm(s, x, alpha=0.7, beta=0.5),
    "conv": lambda s, x: s.conv(x, C),
    "conv without bias": lambda s, x: s.conv(x, C, bias=False),
    "grouped conv": lambda s, x: s.conv(x, C, group=2),
    "depthwise conv": lambda s, x: s.conv(x, C, group=C),
    "instance normalization": lambda s, x: s.add("InstanceNormalization", x, s.normal(C), s.normal(C)),
    "factor and offset": lambda s, x: s.add("Add", s.add("Mul", s.add("Tanh", x), s.normal(1, C, 1, 1)), s.normal(C, 1, 1)),
    "offset in front": lambda s, x: s.add("Sub", s.conv(x, C), s.normal(C, 1, 1)),
    "layer normalization": lambda s, x: to_map(s, normalised(s, to_tokens(s, x))),
    "layer normalization without beta": lambda s, x: to_map(s, s.add("LayerNormalization", to_tokens(s, x), s.normal(C))),
    "linear": lambda s, x: to_map(s, s.add("MatMul", to_tokens(s, x), s.normal(C, C))),
    "linear with bias": lambda s, x: to_map(s, s.add("Add", s.normal(C), s.add("MatMul", to_tokens(s, x), s.normal(C, C)))),
}

BETWEEN: dict[str, Part] = {
    "nothing": lambda s, x: x,
    "relu": lambda s, x: s.add("Relu", x),
    "leaky relu": lambda s, x: s.add("LeakyRelu", x, alpha=0.1),
    "open clip": lambda s, x: s.add("Clip", x, s.constant(0.0)),
    "max pool": lambda s, x: s.add("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4),
    "average pool": lambda s, x: s.add("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4),
    "average pool with zeros": lambda s, x: s.add("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
    "pooled mean": lambda s, x: s.add("ReduceMean", x, s.constant([3], np.int64)),
    "pooled sum": lambda s, x: s.add("ReduceSum", x, s.constant([-1], np.int64)),
    "resize": resized_and_back,
    "shuffle": shuffle,
    "halves": in_two_parts,
    "residual": residual,
    "gates": gated,
    "number": lambda s, x: s.add("Mul", x, s.constant(-0.3)),
    "tokens and back": lambda s, x: to_map(s, to_tokens(s, x)),
}


def linear(s: Sketch, x: str) -> str:
    """Channels last, then five outputs, [1, height, width, 5]."""
    return s.add("MatMul", s.add("Transpose", x, perm=[0, 2, 3, 1]), s.normal(C, 5))


READERS: dict[str, Part] = {
    "conv": lambda s, x: s.conv(x, C, outputs=4),
    "conv without border": lambda s, x: s.conv(x, C, outputs=4, size=1, bias=False),
    "grouped conv": lambda s, x: s.conv(x, C, group=4),
    "depthwise conv": lambda s, x: s.conv(x, C, group=C),
    "depthwise with two outputs": lambda s, x: s.conv(x, C, group=C, outputs=2 * C),
    "two convs": lambda s, x: s.add("Add", s.conv(x, C, size=1), s.conv(x, C)),
    "linear": lambda s, x: linear(s, x),
    "linear with bias": lambda s, x: s.add("Add", linear(s, x), s.normal(5)),
    "linear with positions": lambda s, x: s.add("Add", linear(s, x), s.normal(6, 1, 5)),
    "linear with a number": lambda s, x: s.add("Add", linear(s, x), s.normal(1)),
    "gemm of means": lambda s, x: s.add("Gemm", s.add("Flatten", s.add("GlobalAveragePool", x)), s.normal(5, C), s.normal(5), transB=1),
    "gemm of maxima": lambda s, x: s.add("Gemm", s.add("Flatten", s.add("GlobalMaxPool", x)), s.normal(C, 5), alpha=0.5),
}


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(MAKERS)), st.sampled_from(sorted(BETWEEN)), st.sampled_from(sorted(READERS)), st.integers(0, 99))
def test_folding_every_site_leaves_the_outputs(maker: str, between: str, reader: str, seed: int) -> None:
    sketch = Sketch(seed)
    x = sketch.add("Tanh", sketch.input("x", 1, C, 6, 6))
    model = sketch.model(READERS[reader](sketch, BETWEEN[between](sketch, MAKERS[maker](sketch, x))))
    folds = random_folds(model, seed)
    assert any(site.kind == "fold" and site.channels == C for site in find_sites(model).values())
    assert difference(model, apply_folds(model, find_sites(model), folds)) < 1e-5


def attention(s: Sketch, x: str, spelling: str) -> str:
    """Two heads of four channels on tokens [1, 9, 8]; all spellings compute an attention of their own weights."""
    heads = s.constant([1, 9, 2, 4], np.int64)
    if spelling == "apart":
        q, k, v = (s.add("Reshape", s.add("Add", s.add("MatMul", x, s.normal(C, C)), s.normal(C)), heads) for _ in range(3))
        q, k, v = (
            s.add("Transpose", q, perm=[0, 2, 1, 3]),
            s.add("Transpose", k, perm=[0, 2, 3, 1]),
            s.add("Transpose", v, perm=[0, 2, 1, 3]),
        )
    else:
        packed = s.add("Add", s.add("MatMul", x, s.normal(C, 3 * C)), s.normal(3 * C))
        if spelling == "by head":
            packed = s.add("Transpose", s.add("Reshape", packed, s.constant([1, 9, 2, 12], np.int64)), perm=[0, 2, 1, 3])
            q, k, v = s.split("Split", packed, s.constant([4, 4, 4], np.int64), outputs=3, axis=3)
        else:
            packed = s.add("Reshape", packed, s.constant([1, 9, 3, 2, 4], np.int64))
            packed = s.add("Transpose", packed, perm=[2, 0, 3, 1, 4])
            if spelling == "split":
                q, k, v = (s.add("Squeeze", p, s.constant([0], np.int64)) for p in s.split("Split", packed, outputs=3, num_outputs=3))
            else:
                q, k, v = (s.add("Gather", packed, s.constant(i, np.int64), axis=0) for i in range(3))
        k = s.add("Transpose", k, perm=[0, 1, 3, 2])
    scores = s.add("Mul", s.add("MatMul", s.add("Mul", q, s.constant(0.7)), k), s.constant(0.5))
    mixed = s.add("MatMul", s.add("Softmax", scores, axis=-1), v)
    mixed = s.add("Reshape", s.add("Transpose", mixed, perm=[0, 2, 1, 3]), s.constant([1, 9, 8], np.int64))
    return s.add("Add", s.add("MatMul", mixed, s.normal(C, C)), s.normal(C), name="projected")


@pytest.mark.parametrize("spelling", ["apart", "split", "gather", "by head"])
def test_attention_has_the_same_sites_however_it_is_spelled(spelling: str) -> None:
    sketch = Sketch()
    x = normalised(sketch, sketch.input("x", 1, 9, C))
    model = sketch.model(sketch.add("Add", x, attention(sketch, sketch.add("Mul", x, sketch.constant(0.9)), spelling)))
    sites = find_sites(model)
    assert [(s.kind, s.channels, s.shift) for s in sites.values()] == [("balance", C, False), ("fold", C, True)]
    value = list(sites.values())[1]
    assert value.axis == 2
    assert difference(model, apply_folds(model, sites, random_folds(model))) < 1e-5


def test_a_convolution_in_front_of_another_by_hand() -> None:
    """y = relu(2 x + 1), z = 3 y + 5 y' with the channels y divided by 4 and y' by 8."""
    sketch = Sketch()
    weight, bias = sketch.constant([[[[2.0]]], [[[6.0]]]]), sketch.constant([1.0, 2.0])
    y = sketch.add("Relu", sketch.add("Conv", sketch.input("x", 1, 1, 2, 2), weight, bias, name="first"), name="y")
    model = sketch.model(sketch.add("Conv", y, sketch.constant([[[[3.0]], [[5.0]]]]), name="second"))
    folded = apply_folds(model, find_sites(model), {"y.0": Fold((4.0, 8.0))})
    arrays = {str(n.name): [constant(v) for v in n.inputs[1:]] for n in folded.graph}
    assert [a.reshape(-1).tolist() for a in arrays["first"] if a is not None] == [[0.5, 0.75], [0.25, 0.25]]
    assert [a.reshape(-1).tolist() for a in arrays["second"] if a is not None] == [[12.0, 40.0]]


def test_a_shift_behind_a_normalization_by_hand() -> None:
    """RepQ-ViT, equations 12 to 14: gamma / s, (beta - m) / s, s W and b + m W."""
    sketch = Sketch()
    x = sketch.add("LayerNormalization", sketch.input("x", 3, 2), sketch.constant([2.0, 3.0]), sketch.constant([0.5, 1.0]), name="norm")
    model = sketch.model(sketch.add("Gemm", x, sketch.constant([[1.0], [10.0]]), sketch.constant([0.25]), name="linear"))
    (site,) = find_sites(model).values()
    assert (site.tensor, site.shift, site.axis) == ("norm.0", True, 1)
    folded = apply_folds(model, find_sites(model), {"norm.0": Fold((2.0, 4.0), (1.0, -1.0))})
    gamma, beta = (constant(v) for v in folded.graph.node("norm").inputs[1:])
    weight, bias = (constant(v) for v in folded.graph.node("linear").inputs[1:])
    assert gamma is not None and beta is not None and weight is not None and bias is not None
    assert (gamma.tolist(), beta.tolist()) == ([1.0, 0.75], [-0.25, 0.5])
    assert (weight.reshape(-1).tolist(), bias.tolist()) == ([2.0, 40.0], [0.25 + 1.0 - 10.0])


def test_rescaled_tensors_are_what_the_site_says() -> None:
    """Every member divided, or multiplied, by the scales of its channels, after the shift where it is shifted."""
    sketch = Sketch()
    x = to_tokens(sketch, in_two_parts(sketch, sketch.conv(sketch.input("x", 1, C, 3, 3), C)))
    model = sketch.model(attention(sketch, normalised(sketch, x), "split"))
    sites, folds = find_sites(model), random_folds(model)
    folded = apply_folds(model, sites, folds)
    (feed,) = feeds_for(model, 1)
    lacking = {f"{uptake.node}.0" for site in sites.values() for uptake in site.uptakes if uptake.bias_node != uptake.node}
    members = {name for site in sites.values() for name in site.tensors} - lacking
    assert len(members) > 10
    before, after = (_values(m, sorted(members), feed) for m in (model, folded))
    for name in members:
        expected = before[name].astype(np.float64)
        for site in sites.values():
            for member in (m for m in site.members if m.tensor == name):
                fold = folds[site.tensor]
                if member.shifted:
                    expected = expected - np.where(member.channels >= 0, np.asarray(fold.shift)[member.channels], 0.0)
                expected = expected / np.where(member.channels >= 0, np.asarray(fold.scale)[member.channels] ** member.powers, 1.0)
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
    folds = random_folds(model)
    assert len(folds) == 3
    assert difference(model, apply_folds(model, find_sites(model), folds)) < 1e-5


def test_the_model_given_is_left_as_it_is_and_names_stay() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.conv(sketch.add("Relu", sketch.conv(sketch.input("x", 1, 4, 4, 4), 4)), 4))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    folded = apply_folds(model, find_sites(model), random_folds(model, kinds=("fold",)))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    for names in (
        lambda m: [n.name for n in m.graph],
        lambda m: [o.name for n in m.graph for o in n.outputs],
        lambda m: list(m.graph.initializers),
    ):
        assert names(folded) == names(model)  # type: ignore[no-untyped-call]


def test_an_inserted_multiplication_serves_the_convolutions_only() -> None:
    sketch = Sketch()
    x = sketch.silu(sketch.conv(sketch.input("x", 1, 4, 6, 6), 4))
    model = sketch.model(sketch.add("Add", sketch.add("Add", sketch.conv(x, 4), sketch.conv(x, 4, group=4)), x))
    sites = find_sites(model)
    assert {name: site.kind for name, site in sites.items()} == {"x": "inserted", x: "inserted"}
    folded = apply_folds(model, sites, {x: Fold((1.0, 2.0, 4.0, 8.0))})
    inserted = folded.graph.node(f"{scaled_name(x)}_Mul")
    assert inserted.outputs[0].name == f"{x}_scaled"
    assert [n.op_type for n, _ in ((use.node, use.idx) for use in inserted.outputs[0].uses())] == ["Conv", "Conv"]
    factors = inserted_factors(inserted)
    assert factors is not None and factors.tolist() == [1.0, 0.5, 0.25, 0.125]
    assert inserted_factors(folded.graph.node(0)) is None
    assert difference(model, folded) < 1e-5
    made: set[str | None] = {"x", *folded.graph.initializers}
    for node in folded.graph:  # in an order in which it can run
        assert {v.name for v in node.inputs if v is not None} <= made
        made.update(o.name for o in node.outputs)


@pytest.mark.parametrize(
    ("folds", "complaint"),
    [
        ({"nowhere": Fold((1.0,))}, "tensor 'nowhere' has no site"),
        ({"y.0": Fold((1.0,) * 3)}, "'y.0' has 3 scales for 4 channels"),
        ({"y.0": Fold((1.0, 1.0, 1.0, 0.0))}, "not a positive number"),
        ({"y.0": Fold((1.0, 1.0, 1.0, float("nan")))}, "not a positive number"),
        ({"y.0": Fold((1.0,) * 4, (0.0,) * 3)}, "'y.0' has 3 shifts for 4 channels"),
        ({"y.0": Fold((1.0,) * 4, (float("inf"),) * 4)}, "a shift that is not a number"),
        ({"x": Fold((1.0,) * 4, (0.0,) * 4)}, "'x' has a shift, which is not exact there"),
        ({"y.0": Fold((1e-39,) * 4)}, "constant input 1 of operator 'y' would leave the range of numbers"),
    ],
)
def test_folds_that_do_not_fit_are_refused(folds: dict[str, Fold], complaint: str) -> None:
    sketch = Sketch()
    y = sketch.conv(sketch.input("x", 1, 4, 4, 4), 4, name="y")
    model = sketch.model(sketch.conv(y, 4, size=1))
    with pytest.raises(ValueError, match=complaint):
        apply_folds(model, find_sites(model), folds)


def test_folds_found_at_one_size_hold_at_others() -> None:
    sample = {"image": np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)}
    model = canonicalise(hybrid_model(dynamic_batch=True, dynamic_size=True), [sample]).model
    shapes = {name: stats.shape for name, stats in observe(model, [sample], threads=1).tensors.items()}
    sites = find_sites(model, shapes)
    folds = {name: Fold(tuple(np.geomspace(0.1, 10.0, s.channels)), (0.5,) * s.channels if s.shift else ()) for name, s in sites.items()}
    assert {site.kind for site in sites.values()} == {"fold", "balance", "inserted"}
    folded = apply_folds(model, sites, folds)
    for shape in [(1, 3, 32, 32), (3, 3, 48, 16)]:
        feed = {"image": np.random.default_rng(1).random(shape, dtype=np.float32)}
        before, after = (run_session(open_session(ir.to_proto(m), threads=1, optimise=False), feed)["logits"] for m in (model, folded))
        np.testing.assert_allclose(after, before, atol=1e-5 * float(np.abs(before).max()))
