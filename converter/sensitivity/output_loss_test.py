"""The loss of an output follows from what makes it and from its values, and the user has the last word."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from converter.calibration.observer import output_values
from converter.errors import UsageError
from converter.sensitivity.loss_names import parse_losses
from converter.sensitivity.output_loss import OutputLoss, describe_losses, output_losses
from converter.testing.sketch import Sketch, feeds_for

Build = Callable[[Sketch], str]
POSITIONS, CLASSES = 6, 5


def losses_of(build: Build, wanted: dict[str, str] | None = None, samples: int = 4) -> dict[str, OutputLoss]:
    sketch = Sketch()
    model = sketch.model(build(sketch))
    return output_losses(model, output_values(model, feeds_for(model, samples), threads=1), wanted or {})


def loss_of(build: Build, wanted: str = "") -> OutputLoss:
    sketch = Sketch()
    model = sketch.model(build(sketch))
    name = str(model.graph.outputs[0].name)
    return output_losses(model, output_values(model, feeds_for(model, 4), threads=1), {name: wanted} if wanted else {})[name]


def tokens(s: Sketch) -> str:
    return s.input("x", 1, POSITIONS, CLASSES)


def linear(s: Sketch, x: str, width: int = CLASSES) -> str:
    return s.add("MatMul", x, s.normal(CLASSES, width))


def softmax_moved(s: Sketch) -> str:
    """Classes along axis 1, moved to the end, and the batch axis dropped."""
    y = s.add("Softmax", s.add("Transpose", linear(s, tokens(s)), perm=[0, 2, 1]), axis=1)
    return s.add("Squeeze", s.add("Transpose", y, perm=[0, 2, 1]), s.constant([0], np.int64))


def shares(s: Sketch) -> str:
    x = s.add("Exp", tokens(s))
    return s.add("Div", x, s.add("ReduceSum", x, s.constant([1], np.int64), keepdims=1))


@pytest.mark.parametrize(
    ("build", "axis"),
    [
        (lambda s: s.add("Softmax", linear(s, tokens(s)), axis=-1), -1),
        (lambda s: s.add("LogSoftmax", linear(s, tokens(s)), axis=1), -2),
        (lambda s: s.add("Softmax", s.conv(s.input("x", 1, 4, 5, 6), 4), axis=1), -3),
        (softmax_moved, -1),
        (shares, -2),
    ],
    ids=["softmax", "logsoftmax over axis 1", "over the channels of a map", "moved behind", "adds up to one without a softmax"],
)
def test_class_scores_are_told_by_a_softmax_or_by_adding_up_to_one(build: Build, axis: int) -> None:
    loss = loss_of(build)
    assert (loss.kind, loss.axis, loss.score_weight) == ("scores", axis, 1.0)


@pytest.mark.parametrize(
    "build",
    [
        lambda s: s.add("Sigmoid", linear(s, tokens(s))),
        lambda s: s.add("Mul", s.add("Sigmoid", linear(s, tokens(s))), s.constant(640.0)),
        lambda s: s.conv(s.input("x", 1, 4, 5, 6), 4),
        lambda s: linear(s, tokens(s), 1),
        lambda s: s.add("LpNormalization", linear(s, tokens(s)), axis=-1),
        lambda s: s.add("Add", linear(s, tokens(s)), "x"),
        lambda s: s.add("Transpose", linear(s, tokens(s)), perm=[0, 2, 1]),
    ],
    ids=["sigmoid", "boxes", "map", "one number", "normalised embedding", "residual sum", "layer's channels are not the last axis"],
)
def test_all_else_are_values(build: Build) -> None:
    assert loss_of(build).kind == "values"


@pytest.mark.parametrize(
    "build",
    [
        lambda s: linear(s, tokens(s)),
        lambda s: s.add("Add", linear(s, tokens(s)), s.normal(CLASSES)),
        lambda s: s.add("Gemm", s.input("x", 1, CLASSES), s.normal(CLASSES, CLASSES)),
        lambda s: s.add("Flatten", s.conv(s.input("x", 1, 4, 1, 1), 4, size=1)),
        lambda s: s.add("Transpose", s.add("Flatten", s.conv(s.input("x", 1, 4, 1, 6), 4, size=1), axis=2), perm=[1, 0]),
    ],
    ids=["product", "with a bias", "gemm", "1x1 convolution", "moved behind"],
)
def test_what_a_linear_layer_makes_may_be_either(build: Build) -> None:
    assert loss_of(build).kind == "either"


def test_an_output_that_is_declared_with_too_few_axes_counts_as_values() -> None:
    sketch = Sketch()
    model = sketch.model(linear(sketch, tokens(sketch)))
    values = output_values(model, feeds_for(model, 4), threads=1)
    model.graph.outputs[0].shape = ir.Shape([])
    assert [loss.kind for loss in output_losses(model, values, {}).values()] == ["values"]


@pytest.mark.parametrize("scale", [0.01, 1.0, 20.0])
def test_of_either_neither_loss_drowns_the_other(scale: float) -> None:
    """Errors of equal variance in all entries cost as much by the one as by the other, and each at least half of its own."""

    def build(s: Sketch) -> str:
        return s.add("MatMul", tokens(s), s.constant(scale * np.random.default_rng(0).standard_normal((CLASSES, CLASSES))))

    sketch = Sketch()
    model = sketch.model(build(sketch))
    values = output_values(model, feeds_for(model, 16), threads=1)
    ((name, loss),) = output_losses(model, values, {}).items()
    y = np.concatenate(values[name]).astype(np.float64)
    noise = 1e-3 * scale * np.random.default_rng(1).standard_normal((200, *y.shape))

    def divergence(other: np.ndarray) -> float:
        p, q = (z - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True)) - z.max(-1, keepdims=True) for z in (y, other))
        return float((np.exp(p) * (p - q)).sum(-1).mean())

    by_scores = loss.score_weight * divergence(y + noise)
    by_values = loss.value_weight * float(np.square(noise).mean() / np.square(y).mean())
    assert by_scores == pytest.approx(by_values, rel=0.1)
    assert min(loss.score_weight, loss.value_weight / 0.2) == pytest.approx(0.5)


def detection(s: Sketch, *, scales: int = 1, transposed: bool = False) -> str:
    """Boxes up to 640, of centres and sizes, joined with scores up to one, at one or more scales."""
    maps = [s.input(f"x{i}", 1, CLASSES, 4 + i) for i in range(scales)]
    ends = []
    for x in maps:
        boxes = [
            s.add(
                "Mul", s.add("Sigmoid", s.add("Slice", x, *(s.constant([n], np.int64) for n in (2 * i, 2 * i + 2, 1)))), s.constant(640.0)
            )
            for i in (0, 1)
        ]
        scores = s.add("Sigmoid", x)
        ends.append(s.add("Concat", s.add("Concat", *boxes, axis=1), scores, axis=1))
    y = ends[0] if scales == 1 else s.add("Concat", *ends, axis=2)
    return s.add("Transpose", y, perm=[0, 2, 1]) if transposed else y


@pytest.mark.parametrize("scales", [1, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_quantities_of_other_ranges_in_one_output_are_its_parts(scales: int, transposed: bool) -> None:
    loss = loss_of(lambda s: detection(s, scales=scales, transposed=transposed))
    assert (loss.kind, loss.axis, loss.parts) == ("values", -1 if transposed else -2, ((0, 4), (4, 4 + CLASSES)))
    assert "2 parts" in loss.reason


def test_what_is_joined_of_one_range_has_no_parts() -> None:
    assert loss_of(lambda s: s.add("Concat", s.add("Sigmoid", tokens(s)), s.add("Tanh", "x"), axis=2)).parts == ()


def test_the_user_knows_better() -> None:
    build: Build = lambda s: linear(s, tokens(s))  # noqa: E731
    assert (loss_of(build, "scores").kind, loss_of(build, "values").kind) == ("scores", "values")
    assert loss_of(detection, "scores").kind == "scores"
    assert loss_of(detection, "values").parts == ((0, 4), (4, 4 + CLASSES))
    with pytest.raises(UsageError, match="no float output 'nothing'"):
        losses_of(build, {"nothing": "scores"})


def test_words_of_the_command_line() -> None:
    assert parse_losses(["a=scores", "b=c=values"]) == {"a": "scores", "b=c": "values"}
    for wrong in (["a"], ["a=logits"], ["=scores"], ["a=scores", "a=values"]):
        with pytest.raises(UsageError):
            parse_losses(wrong)


def test_the_report_says_which_and_why() -> None:
    sketch = Sketch()
    x = tokens(sketch)
    model = sketch.model(sketch.add("Softmax", linear(sketch, x), name="p"), sketch.add("Tanh", x, name="t"))
    assert isinstance(model, ir.Model)
    text = describe_losses(output_losses(model, output_values(model, feeds_for(model, 2), threads=1), {}))
    assert text == "KL divergence of p.0 (made by a softmax); squared error of t.0 (not made as class scores are)"
