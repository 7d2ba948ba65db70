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


def test_what_is_chosen_by_computed_indices_holds_no_known_places() -> None:
    s = Sketch()
    x = s.input("x", 1, 4, 6, 6)
    chosen = s.add(
        "Gather", x, s.add("ArgMax", s.add("ReduceMean", x, integers(s, 1, 2), keepdims=0), axis=1, keepdims=0), axis=3, name="g"
    )
    places, _ = followed(s.model(chosen))
    assert places["g.0"] == ()
