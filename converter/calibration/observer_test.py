from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import converter.calibration.observer as observer_module
from converter.calibration.observer import collect_statistics, nearest_to_zero
from converter.errors import CalibrationError
from converter.runtime.session import open_session, run_session
from converter.testing.sketch import Sketch, feeds_for


def chain(length: int = 6, *size: int) -> ir.Model:
    sketch = Sketch()
    x = sketch.input("x", *(size or (1, 4, 16, 16)))
    for _ in range(length):
        x = sketch.add("Sigmoid", x)
    return sketch.model(x)


def test_ranges_are_those_of_all_samples() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.add("Mul", sketch.input("x", 1, 3), sketch.constant([2.0]), name="double"))
    feeds = [{"x": np.asarray([[-1, 0, 1]], np.float32)}, {"x": np.asarray([[0.5, 5, 0]], np.float32)}]
    seen = collect_statistics(model, feeds, threads=1)
    assert seen.samples == 2
    assert (seen.tensors["x"].minimum, seen.tensors["x"].maximum, seen.tensors["x"].shape) == (-1.0, 5.0, (1, 3))
    assert (seen.tensors["double.0"].minimum, seen.tensors["double.0"].maximum) == (-2.0, 10.0)
    assert sorted(seen.tensors["double.0"].sample.tolist()) == [-2.0, 0.0, 0.0, 1.0, 2.0, 10.0]


@pytest.mark.parametrize("workers", [1, 2])
def test_large_tensors_are_looked_at_in_blocks(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """The last block is shorter; numbers that are not finite are in one of them."""
    monkeypatch.setattr(observer_module, "_BLOCK", 10)
    sketch = Sketch()
    model = sketch.model(sketch.add("Identity", sketch.input("x", 33)))
    x = np.linspace(-3.0, 29.0, 33, dtype=np.float32)
    stats = collect_statistics(model, [{"x": x + np.float32(0.25)}], threads=workers).tensors["x"]
    assert (stats.minimum, stats.maximum, stats.nearest, stats.flaw) == (-2.75, 29.25, 0.25, "")
    x[[0, 32]] = np.nan, np.inf
    broken = collect_statistics(model, [{"x": x}], threads=workers).tensors["x"]
    assert (broken.minimum, broken.maximum, broken.nearest) == (-2.0, 28.0, 1.0) and "finite" in broken.flaw


def test_constants_integers_and_dead_tensors_are_left_out() -> None:
    sketch = Sketch()
    x = sketch.input("x", 2, 4)
    sketch.add("Exp", x, name="dead")
    shape = sketch.add("Shape", x, name="shape")
    model = sketch.model(sketch.add("Reshape", x, shape, name="same"))
    assert set(collect_statistics(model, feeds_for(model), threads=1).tensors) == {"x", "same.0"}


def test_samples_hold_values_of_the_tensor_and_are_bounded() -> None:
    model = chain(2, 1, 4, 64, 64)
    feeds = feeds_for(model, 8)
    stats = collect_statistics(model, feeds, threads=1).tensors["x"]
    assert stats.sample.dtype == np.float32
    assert stats.sample.size == 16384
    assert np.isin(stats.sample, np.concatenate([f["x"].reshape(-1) for f in feeds])).all()


def test_the_same_seed_gives_the_same_sample() -> None:
    model = chain(2, 1, 4, 64, 64)
    first, again, other = (
        collect_statistics(model, feeds_for(model), seed=seed, threads=1).tensors["sigmoid_0.0"].sample for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_groups_bound_the_memory_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = chain(6)
    feeds = feeds_for(model)
    whole = collect_statistics(model, feeds, threads=1)
    opened: list[int] = []

    def counted(proto: object, **rest: object) -> object:
        session = open_session(proto, **rest)  # type: ignore[arg-type]
        opened.append(len(session.get_outputs()))
        return session

    steps: list[tuple[int, int]] = []
    size = 4 * 4 * 16 * 16
    monkeypatch.setattr(observer_module, "_BYTES_AT_ONCE", 2 * size + 10)
    monkeypatch.setattr(observer_module, "open_session", counted)
    parted = collect_statistics(model, feeds, threads=1, progress=lambda done, total: steps.append((done, total)))
    assert len(opened) == 3
    assert max(opened) <= 3, "two tensors of the group and the model's own output"
    assert steps == sorted(steps) and steps[-1] == (4, 4)
    assert parted.tensors.keys() == whole.tensors.keys()
    for name, stats in whole.tensors.items():
        assert (parted.tensors[name].minimum, parted.tensors[name].maximum) == pytest.approx((stats.minimum, stats.maximum), abs=1e-6)
        np.testing.assert_allclose(parted.tensors[name].sample, stats.sample, atol=1e-6)


def test_a_tensor_of_unknown_size_is_taken_to_be_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = Sketch()
    x = sketch.input("x", 4, 8)
    kept = sketch.add(
        "Compress",
        x,
        sketch.add("Greater", sketch.add("ReduceMax", x, sketch.constant([1], np.int64), keepdims=0), sketch.constant(-9.0)),
        axis=0,
    )
    model = sketch.model(sketch.add("Sigmoid", sketch.add("Exp", kept)))
    monkeypatch.setattr(observer_module, "_BYTES_AT_ONCE", 4 * 8 * 4)
    groups = observer_module._groups(model, ["reducemax_0.0", "compress_2.0", "exp_3.0"], feeds_for(model)[0])
    assert groups == [["reducemax_0.0"], ["compress_2.0"], ["exp_3.0"]]


def test_numbers_that_are_not_finite_are_left_out_and_are_a_flaw_of_their_tensor() -> None:
    sketch = Sketch()
    model = sketch.model(
        sketch.add("Where", sketch.add("Greater", sketch.input("x", 1, 3), sketch.constant(0.0)), "x", sketch.constant(-np.inf))
    )
    seen = collect_statistics(model, [{"x": np.asarray([[1, 2, 3]], np.float32)}, {"x": np.asarray([[4, -2, 3]], np.float32)}], threads=1)
    (masked,) = [stats for name, stats in seen.tensors.items() if name != "x"]
    assert (masked.minimum, masked.maximum, masked.flaw) == (1.0, 4.0, "not all of its numbers are finite")
    assert sorted(masked.sample.tolist()) == [1, 2, 3, 3, 4] and seen.tensors["x"].flaw == ""


def test_an_output_without_any_finite_number_is_refused() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.add("Log", sketch.input("x", 1, 3), name="log"))
    with pytest.raises(CalibrationError, match=r"output 'log\.0' is not finite") as caught:
        collect_statistics(model, [{"x": np.full((1, 3), -1, np.float32)}] * 2, threads=1)
    assert caught.value.where == "2 calibration samples"
    assert collect_statistics(model, [{"x": np.asarray([[-1, 2, 3]], np.float32)}], threads=1).tensors["log.0"].flaw


def test_a_tensor_without_elements_has_a_flaw_and_its_shape() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.add("Exp", sketch.input("x", "n", 3)))
    stats = collect_statistics(model, [{"x": np.zeros((0, 3), np.float32)}], threads=1).tensors["x"]
    assert (stats.flaw, stats.shape, stats.minimum, stats.maximum) == ("it has no elements", (0, 3), 0.0, 0.0)


def test_a_tensor_that_changes_its_shape_is_not_steady() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.add("Exp", sketch.input("x", "n", 3), name="y"))
    seen = collect_statistics(model, [{"x": np.ones((n, 3), np.float32)} for n in (2, 4)], threads=1)
    assert [stats.steady for stats in seen.tensors.values()] == [False, False]


def test_the_number_nearest_to_zero_is_noted() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.add("Relu", sketch.input("x", 1, 3), name="y"))
    seen = collect_statistics(
        model, [{"x": np.asarray([[0, -0.25, 3]], np.float32)}, {"x": np.asarray([[0.5, 2, 3]], np.float32)}], threads=1
    )
    assert {name: stats.nearest for name, stats in seen.tensors.items()} == {"x": 0.25, "y.0": 0.5}


@pytest.mark.parametrize(
    "numbers", [[0.0, -0.0], [0.0, 1e-45, -3.0], [-1e-38, 2e-38], [-3.4e38, 0.0], [2.0, -0.25], [3.4028235e38]], ids=str
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_smallest_magnitude_is_the_same_in_all_types(numbers: list[float], dtype: str) -> None:
    with np.errstate(over="ignore"):
        values = np.asarray(numbers, np.dtype(dtype))
    values = values[np.isfinite(values)]
    sizes = [abs(float(x)) for x in values if x != 0]
    assert not values.size or nearest_to_zero(values) == min(sizes, default=np.inf)


def test_observed_values_are_those_of_the_model() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.silu(sketch.conv(sketch.input("x", 1, 4, 8, 8), 4)))
    feeds = feeds_for(model, 1)
    (expected,) = run_session(open_session(ir.to_proto(model), threads=1, optimise=False), feeds[0]).values()
    stats = collect_statistics(model, feeds, threads=1).tensors[str(model.graph.outputs[0].name)]
    assert (stats.minimum, stats.maximum) == pytest.approx((expected.min(), expected.max()), abs=1e-5)
