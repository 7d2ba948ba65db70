"""Where an equalization is exact, where it is not, and what is told about each site."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from converter.testing.equalization import BETWEEN, MAKERS, READERS, C, attention, difference, normalised, random_equalizations, to_tokens
from converter.testing.sketch import Sketch
from converter.transforms.equalization.apply import apply_equalizations
from converter.transforms.equalization.find import find_sites
from converter.transforms.equalization.site import EqualizationSite

Build = Callable[[Sketch, str], str]


def sites_of(build: Build, *shape: int) -> dict[str, EqualizationSite]:
    """Sites of a small network on a map [1, 8, 6, 6], without the insertion at its input."""
    sketch = Sketch()
    model = sketch.model(build(sketch, sketch.input("x", *(shape or (1, C, 6, 6)))))
    return {name: site for name, site in find_sites(model).items() if name != "x"}


def between(name: str, *, reader: str = "conv without border", maker: str = "conv") -> dict[str, EqualizationSite]:
    return sites_of(lambda s, x: READERS[reader](s, BETWEEN[name](s, MAKERS[maker](s, x))))


@pytest.mark.parametrize("maker", MAKERS)
def test_every_maker_is_found(maker: str) -> None:
    (site,) = [site for site in between("nothing", maker=maker).values() if site.kind == "cross_layer" and site.channels == C]
    # a linear layer without a bias behind it cannot give a shift, nor can a subtraction, nor a bias with a factor
    assert (site.axis, site.shift) == (1, maker not in ("linear", "offset in front", "gemm with factors"))
    assert all(scaling.channels.max() < C for scaling in site.scalings)


@pytest.mark.parametrize(
    ("reader", "shift"),
    [
        ("conv", False),  # zeros of the border are no channel's mean
        ("conv without border", True),
        ("grouped conv", False),
        ("two convs", False),  # one of them has a border
        ("linear", False),  # no bias to take it up
        ("linear with bias", True),
        ("linear with positions", True),
        ("linear with a number", False),
        ("gemm of means", True),
        ("gemm of maxima", False),  # with a factor alpha
    ],
)
def test_readers_that_take_up_a_shift(reader: str, shift: bool) -> None:
    assert [site.shift for site in between("nothing", reader=reader).values()] == [shift]


@pytest.mark.parametrize(
    ("passing", "shift"),
    [
        ("relu", False),
        ("leaky relu", False),
        ("open clip", False),
        ("max pool", True),
        ("average pool", True),
        ("average pool with zeros", False),
        ("pooled mean", True),
        ("pooled sum", False),
        ("resize", True),
        ("shuffle", True),
        ("tokens and back", True),
        ("number", False),
        ("residual", False),
        ("gates", False),
    ],
)
def test_what_passes_in_between(passing: str, shift: bool) -> None:
    sites = [site for site in between(passing).values() if site.kind == "cross_layer" and any(s.node == "conv_0" for s in site.scalings)]
    assert [(site.channels, site.shift) for site in sites] == [(C, shift)]


def behind(s: Sketch, x: str, operator: str) -> str:
    return s.conv(s.add(operator, s.conv(x, C)), C)


REFUSED: dict[str, Build] = {
    "silu": lambda s, x: s.conv(s.silu(s.conv(x, C)), C),
    "gelu": lambda s, x: behind(s, x, "Gelu"),
    "sigmoid": lambda s, x: behind(s, x, "Sigmoid"),
    "hard swish": lambda s, x: behind(s, x, "HardSwish"),
    "softmax": lambda s, x: behind(s, x, "Softmax"),
    "closed clip": lambda s, x: s.conv(s.add("Clip", s.conv(x, C), s.constant(0.0), s.constant(6.0)), C),
    "clip below one": lambda s, x: s.conv(s.add("Clip", s.conv(x, C), s.constant(1.0)), C),
    "maximum with a number": lambda s, x: s.conv(s.add("Max", s.conv(x, C), s.constant(0.1)), C),
    "residual with what is fixed": lambda s, x: s.conv(s.add("Add", x, s.conv(x, C)), C),
    "residual with what is fixed later": lambda s, x: s.add(
        "Add", s.add("Tanh", (y := s.conv(x, C))), s.conv(s.add("Add", y, s.conv(y, C)), C)
    ),
    "square": lambda s, x: s.conv(s.add("Mul", (y := s.conv(x, C)), y), C),
    "rows become channels": lambda s, x: s.conv(s.add("Transpose", s.conv(x, C), perm=[0, 2, 1, 3]), 6),
    "sum of all channels": lambda s, x: s.conv(s.add("Mul", (y := s.conv(x, C)), s.add("ReduceSum", y, s.constant([1], np.int64))), C),
    "read by a normalization too": lambda s, x: s.add(
        "Add", s.conv((y := s.conv(x, C)), C), s.add("InstanceNormalization", y, s.normal(C), s.normal(C))
    ),
    "a number added": lambda s, x: s.conv(s.add("Add", s.conv(x, C), s.constant(1.0)), C),
}


@pytest.mark.parametrize("case", REFUSED)
def test_no_equalization_where_it_would_not_be_exact(case: str) -> None:
    sketch = Sketch()
    model = sketch.model(REFUSED[case](sketch, sketch.input("x", 1, C, 6, 6)))
    assert [site.kind for site in find_sites(model).values() if site.kind != "per_channel_quantize"] == []
    assert any(site.inserted for site in find_sites(model).values())


def test_a_model_output_is_left_as_it_is() -> None:
    sketch = Sketch()
    y = sketch.conv(sketch.input("x", 1, 4, 6, 6), 4)
    assert {s.kind for s in find_sites(sketch.model(y, sketch.conv(y, 4))).values()} == {"per_channel_quantize"}


def test_a_layer_with_computed_weights_takes_nothing() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.add("Conv", sketch.conv(sketch.input("x", 1, C, 6, 6), C), sketch.input("w", C, C, 1, 1)))
    assert set(find_sites(model)) == {"x"}


def test_inserted_sites_are_maps_that_enter_convolutions() -> None:
    """Not tokens: a Q with one scale per channel of the last axis is more than a hundred times as dear."""

    def network(s: Sketch, x: str) -> str:
        tokens = s.add("Gelu", to_tokens(s, s.silu(s.conv(x, C))))
        return s.add("MatMul", tokens, s.normal(C, 3))

    assert sites_of(network) == {}
    (site,) = sites_of(lambda s, x: s.conv(s.silu(s.conv(x, C)), C, group=4)).values()
    assert (site.kind, site.channels, site.axis, site.shift, site.members) == ("per_channel_quantize", C, 1, False, ())
    ((node, index),) = site.insertion.readers
    (scaling,) = site.scalings
    assert (node, index) == (scaling.node, 0)
    assert scaling.channels.reshape(C, 2).tolist() == [[2 * (o // 2), 2 * (o // 2) + 1] for o in range(C)]


def test_a_concat_has_a_site_for_the_part_that_is_free_and_an_insertion_for_all() -> None:
    def network(s: Sketch, x: str) -> str:
        free, fixed = s.conv(x, C, name="free"), s.silu(s.conv(x, C))
        return s.add("Add", s.conv(free, C), s.conv(s.add("Concat", free, fixed, axis=1, name="both"), 2 * C, outputs=C))

    sites = sites_of(network)
    assert {name: (site.kind, site.channels) for name, site in sites.items()} == {
        "free.0": ("cross_layer", C),
        "both.0": ("per_channel_quantize", 2 * C),
    }
    (both,) = [m for m in sites["free.0"].members if m.tensor == "both.0"]
    assert both.channels.reshape(-1).tolist() == [*range(C), *[-1] * C]


def test_a_concat_that_is_the_only_reader_keeps_the_equalization() -> None:
    """Both would be known by the same tensor; the equalization costs nothing when the model runs."""

    def network(s: Sketch, x: str) -> str:
        return s.conv(s.add("Concat", s.conv(x, C), s.silu(s.conv(x, C)), axis=1, name="both"), 2 * C, outputs=C)

    ((name, site),) = sites_of(network).items()
    assert (name, site.kind, site.channels) == ("both.0", "cross_layer", C)


def test_a_shift_holds_beside_an_insertion_on_the_same_weights() -> None:
    s = Sketch()
    x = s.input("x", 1, C, 6, 6)
    free = s.conv(x, C, name="free")
    both = s.conv(s.add("Concat", free, s.silu(s.conv(x, C)), axis=1, name="both"), 2 * C, outputs=C, size=1)
    model = s.model(s.add("Add", s.conv(free, C, size=1), both))
    sites = find_sites(model)
    assert sites["free.0"].shift and sites["both.0"].inserted
    for order in (list(sites), list(sites)[::-1]):
        equalizations = random_equalizations(model)
        assert difference(model, apply_equalizations(model, sites, {name: equalizations[name] for name in order})) < 1e-5


def test_tensors_of_a_residual_stream_share_a_site() -> None:
    sites = between("residual")
    (stream,) = [site for site in sites.values() if site.kind == "cross_layer"]
    assert len(stream.tensors) == 3  # the first convolution, the last of the branch, their sum
    assert stream.tensor == stream.tensors[0]
    assert not set(stream.tensors[1:]) & set(sites)  # what is free needs no insertion, though a convolution reads it


def test_key_and_query_cancel_and_the_other_sites_stay_apart() -> None:
    sketch = Sketch()
    x = normalised(sketch, sketch.input("x", 1, 9, C))
    model = sketch.model(attention(sketch, x, "split"))
    norm, query_key, value = find_sites(model).values()
    assert (norm.kind, norm.axis, norm.shift) == ("cross_layer", 2, True)
    assert (query_key.kind, query_key.axis, query_key.shift) == ("query_key", None, False)
    packed = next(m for m in query_key.members if m.channels.shape == (1, 1, 3 * C))
    assert packed.channels.reshape(-1).tolist() == [*range(C), *range(C), *[-1] * C]
    assert packed.powers.reshape(-1).tolist() == [*[1] * C, *[-1] * C, *[1] * C]
    assert (value.kind, value.shift) == ("cross_layer", True)


def test_attention_weights_that_do_not_sum_to_one_pass_no_shift() -> None:
    def network(s: Sketch, mixing: Build) -> EqualizationSite:
        x = s.input("x", 1, 9, C)
        value = s.add("Add", s.add("MatMul", x, s.normal(C, C)), s.normal(C))
        mixed = s.add("MatMul", mixing(s, s.add("MatMul", x, s.normal(C, 9))), value)
        (site,) = find_sites(s.model(s.add("Add", s.add("MatMul", mixed, s.normal(C, 3)), s.normal(3)))).values()
        return site

    assert network(Sketch(), lambda s, p: s.add("Softmax", p, axis=-1)).shift
    assert network(Sketch(), lambda s, p: s.add("Softmax", p, axis=2)).shift
    assert not network(Sketch(), lambda s, p: s.add("Softmax", p, axis=1)).shift
    assert not network(Sketch(), lambda s, p: s.add("Sigmoid", p)).shift


def test_attention_weights_with_factors_of_their_own_leave_them_to_the_value() -> None:
    """Talking heads: a convolution over heads behind the Softmax could give factors too, but the product has one side's only."""
    s = Sketch()
    x = s.input("x", 1, 2, 9, 4)
    value = s.add("MatMul", x, s.normal(4, 4))
    weights = s.conv(s.add("Softmax", s.add("MatMul", x, s.normal(4, 9)), axis=-1), 2, size=1, name="talking")
    model = s.model(s.add("MatMul", s.add("MatMul", weights, value), s.normal(4, 3)))
    sites = find_sites(model)
    assert [(site.kind, site.channels, site.shift) for site in sites.values()] == [
        ("per_channel_quantize", 2, False),
        ("cross_layer", 4, False),
    ]
    assert difference(model, apply_equalizations(model, sites, random_equalizations(model))) < 1e-5


def test_a_shift_is_exact_beside_a_product_that_takes_the_inverse_scale() -> None:
    """x enters a product, whose other operand is multiplied by the scales; x + c enters a layer, and c gives the shift."""
    s = Sketch()
    x, other = (s.add("MatMul", s.input(name, 1, 9, C), s.normal(C, C)) for name in "xy")
    scores = s.add("Softmax", s.add("MatMul", x, s.add("Transpose", other, perm=[0, 2, 1])), axis=-1)
    layer = s.add("Add", s.add("MatMul", s.add("Add", x, s.normal(C)), s.normal(C, 9)), s.normal(9))
    model = s.model(s.add("Add", scores, layer))
    (site,) = find_sites(model).values()
    assert (site.kind, site.channels, site.shift) == ("cross_layer", C, True)
    assert any((member.powers < 0).any() for member in site.members)
    assert difference(model, apply_equalizations(model, find_sites(model), random_equalizations(model))) < 1e-5


def test_open_dimensions_need_observed_shapes() -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", "n", C, "h", "w"), C)
    x = sketch.add("Transpose", sketch.add("Reshape", x, sketch.constant([0, C, -1], np.int64)), perm=[0, 2, 1])
    model = sketch.model(sketch.add("MatMul", x, sketch.normal(C, 5)))
    assert find_sites(model) == {}
    shapes = {"x": (2, C, 6, 6), "conv_0.0": (2, C, 6, 6), "reshape_1.0": (2, C, 36), "transpose_2.0": (2, 36, C)}
    assert [site.tensor for site in find_sites(model, shapes).values()] == ["x", "transpose_2.0"]


def test_nothing_is_found_in_a_model_without_layers() -> None:
    sketch = Sketch()
    model: ir.Model = sketch.model(sketch.add("Relu", sketch.input("x", 1, 3, 4, 4)))
    assert find_sites(model) == {}
