"""Places follow what operators do to them, as far as observed shapes allow, and no operator ends a conversion."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converter.calibration.observer import collect_statistics
from converter.runtime.session import Feed
from converter.sensitivity.token_positions import Places, is_map, places_of
from converter.testing.sketch import Sketch, feeds_for


def followed(model: ir.Model, feeds: list[Feed] | None = None) -> tuple[dict[str, Places], dict[str, tuple[int, ...]]]:
    seen = collect_statistics(model, feeds or feeds_for(model, 1), threads=1)
    shapes = {name: stats.shape for name, stats in seen.tensors.items()}
    return places_of(model, shapes), shapes


def integers(s: Sketch, *numbers: int) -> str:
    return s.constant(list(numbers), np.int64)


def grid(s: Sketch) -> str:
    return s.constant(np.random.default_rng(0).uniform(-1, 1, (1, 3, 5, 2)))


CHANGING = {
    "GridSample": lambda s, x: s.add("GridSample", x, grid(s)),
    "Einsum": lambda s, x: s.add("Einsum", x, x, equation="bchw,bdhw->bcd"),
    "TopK": lambda s, x: s.split("TopK", x, integers(s, 3), outputs=2)[0],
    "GatherND": lambda s, x: s.add("GatherND", x, s.constant([[0, 1], [0, 2]], np.int64)),
    "ReduceL1": lambda s, x: s.add("ReduceL1", x, integers(s, 2), keepdims=0),
    "Det": lambda s, x: s.add("Det", x),
    "CenterCropPad": lambda s, x: s.add("CenterCropPad", x, integers(s, 4, 4), axes=[2, 3]),
    "LSTM": lambda s, x: s.add("LSTM", s.add("Squeeze", x, integers(s, 0)), s.normal(1, 12, 6), s.normal(1, 12, 3), hidden_size=3),
}


@pytest.mark.parametrize("build", CHANGING.values(), ids=CHANGING)
def test_an_operator_that_nobody_knows_keeps_only_places_that_fit_its_result(build) -> None:  # type: ignore[no-untyped-def]
    s = Sketch()
    model = s.model(s.add("Relu", build(s, s.add("Relu", s.input("x", 1, 4, 6, 6), name="map"))))
    places, shapes = followed(model)
    assert is_map(places["map.0"], shapes["map.0"])
    for name, held in places.items():
        assert all(np.broadcast_shapes(tuple(p.shape), shapes[name]) == shapes[name] for p in held)


def test_a_target_that_is_computed_shows_in_the_observed_shape() -> None:
    """As the TorchScript exporter writes a view of a tensor with an open batch."""
    s = Sketch()
    x = s.input("x", "n", 4, 6, 6)
    batch = s.add("Gather", s.add("Shape", x), integers(s, 0), axis=0)
    flat = s.add("Reshape", x, s.add("Concat", batch, integers(s, 4, 36), axis=0), name="flat")
    tokens = s.add("Transpose", flat, perm=[0, 2, 1], name="tokens")
    back = s.add("Reshape", s.add("Transpose", tokens, perm=[0, 2, 1]), s.add("Concat", batch, integers(s, 4, 6, 6), axis=0), name="back")
    places, shapes = followed(s.model(back), [{"x": np.ones((1, 4, 6, 6), np.float32)}])
    assert len(places["tokens.0"]) == 1 and tuple(places["tokens.0"][0].shape) == (1, 36, 1)
    assert is_map(places["back.0"], shapes["back.0"])


def shifted(s: Sketch, x: str, by: int) -> str:
    """Rolled along height and width, as torch.roll is exported."""
    for axis in (1, 2):
        ahead = s.add("Slice", x, integers(s, by), integers(s, 1 << 60), integers(s, axis))
        x = s.add("Concat", ahead, s.add("Slice", x, integers(s, 0), integers(s, by), integers(s, axis)), axis=axis)
    return x


def attention(s: Sketch, x: str, width: int, name: str = "") -> str:
    q, k, v = (s.add("MatMul", x, s.normal(width, width)) for _ in range(3))
    return s.add("MatMul", s.add("Softmax", s.add("MatMul", q, s.add("Transpose", k, perm=[0, 2, 1]))), v, name=name)


def held(places: dict[str, Places], name: str) -> list[int]:
    """Numbers of the one set that a tensor holds, rows times 100."""
    (numbers,) = places[name]
    return [-1 if n < 0 else int(n >> 32) * 100 + int(n % (1 << 32)) for n in numbers.reshape(-1)]


def test_a_class_token_stands_beside_the_places_and_comes_from_none() -> None:
    s = Sketch()
    x = s.add("Transpose", s.add("Reshape", s.input("x", 1, 4, 2, 3), integers(s, 1, 4, 6)), perm=[0, 2, 1])
    x = s.add("Concat", s.normal(1, 1, 4), x, axis=1, name="joined")
    x = s.add("Add", x, attention(s, x, 4, "attended"), name="sum")
    token = s.add("Gather", x, s.constant(0, np.int64), axis=1, name="token")
    back = s.add("Transpose", s.add("Slice", x, integers(s, 1), integers(s, 7), integers(s, 1)), perm=[0, 2, 1])
    places, shapes = followed(s.model(token, s.add("Reshape", back, integers(s, 1, 4, 2, 3), name="back")))
    assert held(places, "joined.0") == held(places, "attended.0") == held(places, "sum.0") == [-1, 0, 1, 2, 100, 101, 102]
    assert places["token.0"] == () and is_map(places["back.0"], shapes["back.0"])


@pytest.mark.parametrize("by", [1, 2], ids=["one row", "two rows"])
def test_shifted_windows_with_padding_are_followed_there_and_back(by: int) -> None:
    s = Sketch()
    x = s.add("Transpose", s.input("x", 1, 4, 5, 7), perm=[0, 2, 3, 1])
    x = shifted(s, s.add("Pad", x, integers(s, 0, 0, 0, 0, 0, 1, 2, 0), name="padded"), by)
    x = s.add("Transpose", s.add("Reshape", x, integers(s, 1, 2, 3, 3, 3, 4)), perm=[0, 1, 3, 2, 4, 5])
    x = attention(s, s.add("Reshape", x, integers(s, 6, 9, 4), name="windows"), 4, "attended")
    x = s.add("Transpose", s.add("Reshape", x, integers(s, 1, 2, 3, 3, 3, 4)), perm=[0, 1, 3, 2, 4, 5])
    x = shifted(s, s.add("Reshape", x, integers(s, 1, 6, 9, 4)), -by)
    x = s.add("Slice", x, integers(s, 0, 0), integers(s, 5, 7), integers(s, 1, 2))
    places, shapes = followed(s.model(s.add("Transpose", x, perm=[0, 3, 1, 2], name="back")))
    assert held(places, "padded.0")[6:9] == [6, -1, -1]
    assert [tuple(p.shape) for p in places["attended.0"]] == [(6, 9, 1)]
    assert held(places, "attended.0")[0] == 100 * by + by
    assert is_map(places["back.0"], shapes["back.0"])


def test_merged_patches_are_the_places_of_a_smaller_map() -> None:
    s = Sketch()
    x = s.add("Transpose", s.input("x", 1, 3, 4, 4), perm=[0, 2, 3, 1])
    parts = [s.add("Slice", x, integers(s, i, j), integers(s, 4, 4), integers(s, 1, 2), integers(s, 2, 2)) for j in (0, 1) for i in (0, 1)]
    x = s.add("Concat", *parts, axis=-1, name="beside")
    x = s.add("MatMul", x, s.normal(12, 6), name="merged")
    places, shapes = followed(s.model(s.add("Transpose", x, perm=[0, 3, 1, 2], name="map")))
    assert tuple(places["beside.0"][0].shape) == (1, 2, 2, 12)
    assert held(places, "merged.0") == [0, 2, 200, 202]  # each patch goes by its first place
    assert is_map(places["map.0"], shapes["map.0"])


def test_patches_of_a_map_beside_each_other_along_the_channels_are_a_smaller_map() -> None:
    """The first layer of some detectors, and no bridge."""
    s = Sketch()
    x = s.input("x", 1, 3, 4, 4)
    parts = [s.add("Slice", x, integers(s, i), integers(s, 4), integers(s, 3), integers(s, 2), name=f"part{i}") for i in (0, 1)]
    places, shapes = followed(s.model(s.add("Concat", *parts, axis=1, name="beside")))
    assert all(is_map(places[name], shapes[name]) for name in ("part0.0", "part1.0", "beside.0"))


def test_places_that_are_pooled_together_become_one_whichever_axes_are_left() -> None:
    """Mask units of a hierarchical transformer: the four places of a unit lie along one axis, and their maximum is taken."""
    s = Sketch()
    x = s.add("Transpose", s.add("Reshape", s.input("x", 1, 3, 4, 4), integers(s, 1, 3, 2, 2, 2, 2)), perm=[0, 3, 5, 2, 4, 1])
    units = s.add("Reshape", x, integers(s, 1, 4, 4, 3))
    places, shapes = followed(s.model(s.add("ReduceMax", units, integers(s, 1), keepdims=0, name="pooled")))
    assert shapes["pooled.0"] == (1, 4, 3) and held(places, "pooled.0") == [0, 2, 200, 202]


def test_what_is_summed_over_altogether_is_gone() -> None:
    s = Sketch()
    x = s.add("Transpose", s.add("Reshape", s.input("x", 1, 4, 2, 3), integers(s, 1, 4, 6)), perm=[0, 2, 1])
    mean = s.add("ReduceMean", x, integers(s, 1), name="mean")
    context = s.add("MatMul", s.add("Transpose", x, perm=[0, 2, 1]), x, name="context")
    places, _ = followed(s.model(mean, s.add("MatMul", x, context, name="attended")))
    assert places["mean.0"] == places["context.0"] == () and held(places, "attended.0") == [0, 1, 2, 100, 101, 102]


def test_a_product_with_fewer_keys_holds_the_places_of_the_queries() -> None:
    s = Sketch()
    x = s.input("x", 1, 4, 4, 4)
    queries = s.add("Transpose", s.add("Reshape", x, integers(s, 1, 4, 16)), perm=[0, 2, 1])
    keys = s.add("Reshape", s.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), integers(s, 1, 4, 4))
    scores = s.add("MatMul", queries, keys, name="scores")
    values = s.add("MatMul", scores, s.add("Transpose", keys, perm=[0, 2, 1]), name="values")
    places, _ = followed(s.model(values))
    assert [tuple(p.shape) for p in places["scores.0"]] == [(1, 16, 1), (1, 1, 4)]
    assert [tuple(p.shape) for p in places["values.0"]] == [(1, 16, 1)]


def test_a_convolution_inside_of_windows_makes_no_map_of_them() -> None:
    s = Sketch()
    x = s.add("Transpose", s.add("Reshape", s.input("x", 1, 4, 6, 6), integers(s, 4, 2, 3, 2, 3)), perm=[1, 3, 0, 2, 4])
    x = s.conv(s.add("Reshape", x, integers(s, 4, 4, 3, 3)), 4, name="inside")
    places, shapes = followed(s.model(x))
    assert tuple(places["inside.0"][0].shape) == (4, 1, 3, 3) and not is_map(places["inside.0"], shapes["inside.0"])


def test_indices_that_follow_from_shapes_are_known() -> None:
    s = Sketch()
    x = s.input("x", "n", 4, 6, 6)
    height = s.add("Gather", s.add("Shape", x), integers(s, 2), axis=0)
    tokens = s.add("Reshape", x, integers(s, 0, 4, 36))
    places, _ = followed(
        s.model(s.add("Slice", tokens, integers(s, 0), height, integers(s, 2), name="row")), [{"x": np.ones((1, 4, 6, 6), np.float32)}]
    )
    assert held(places, "row.0") == [0, 1, 2, 3, 4, 5]


def test_what_is_chosen_by_computed_indices_holds_no_known_places() -> None:
    s = Sketch()
    x = s.input("x", 1, 4, 6, 6)
    chosen = s.add(
        "Gather", x, s.add("ArgMax", s.add("ReduceMean", x, integers(s, 1, 2), keepdims=0), axis=1, keepdims=0), axis=3, name="g"
    )
    places, _ = followed(s.model(chosen))
    assert places["g.0"] == ()
