"""Linear layers as convolutions: the same codes as the other form and as arithmetic by hand, and only where that form costs less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from converter.errors import UsageError
from converter.forms.form import SupportedForm
from converter.options import Options
from converter.partition.cost_model import predict
from converter.pipeline import convert
from converter.plan.records import Plan, TensorPlan
from converter.planning.validate import check_plan
from converter.quantization.parameters import QuantParams
from converter.runtime.session import open_session, run_session
from converter.testing.sketch import TARGET_NAMES, Planned, Sketch, emitted, kernels_of, plan_for, settings_for, shapes_of
from converter.verify.simulation import simulate

FORM = "linear_convolution"
ROWS, INNER, OUTER = 48, 12, 20


def network(kind: str, seed: int = 3) -> ir.Model:
    """A linear layer ``it`` whose result a Sigmoid reads."""
    s = Sketch(seed)
    shape = (ROWS, INNER) if "Gemm" in kind else (3, ROWS // 3, INNER)
    weight = s.normal(OUTER, INNER) if "transposed" in kind else s.normal(INNER, OUTER)
    operands = [s.input("x", *shape), weight, *([s.normal(OUTER)] if "bias" in kind else [])]
    y = s.add(kind.split(", ")[0], *operands, name="it", **({"transB": 1} if "transposed" in kind else {}))
    return s.model(s.add("Sigmoid", y, name="behind"))


def in_form(planned: Planned, form: str) -> Planned:
    ops = planned.plan.ops
    return replace(planned, plan=replace(planned.plan, ops={**ops, "it": replace(ops["it"], form=form)}))


def result(planned: Planned, feed: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    (found,) = run_session(open_session(emitted(planned), threads=1, settings=settings_for(planned.target)), feed).values()
    return found


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("kind", ["Gemm, bias", "Gemm", "Gemm, transposed, bias", "MatMul"])
def test_it_runs_as_one_convolution_between_reshapes_and_gives_the_same_codes(kind: str, target: str, tmp_path: Path) -> None:
    """No Transpose is left: those of the runtime and those that were written cancel."""
    planned = plan_for(network(kind), target)
    plain, convolved = in_form(planned, "weighted"), in_form(planned, FORM)
    feed = {"x": np.random.default_rng(5).uniform(-4.0, 4.0, shapes_of(planned.model)["x"]).astype(np.float32)}  # beyond the grid, too
    np.testing.assert_array_equal(result(convolved, feed), result(plain, feed))
    (simulated,) = simulate(planned.model, convolved.plan, feed).values()
    np.testing.assert_array_equal(result(convolved, feed), simulated)
    kernels = kernels_of(emitted(convolved), planned.target, tmp_path)
    assert (kernels["QLinearConv"], kernels["Transpose"]) == (1, 0)
    assert not {"QGemm", "QLinearMatMul", "Conv", "Gemm", "MatMul"} & kernels.keys()


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("form", ["weighted", FORM])
def test_ties_are_rounded_to_even_and_the_bias_is_within_them(form: str, target: str) -> None:
    """Scales are powers of two, so that every sum of products is known exactly, and every fourth result lies between two codes."""
    signed = target == "arm64"
    s = Sketch()
    generator = np.random.default_rng(7)
    # small codes, so that no kernel saturates; the largest that there is, in each column, makes the weights' scale 1
    weights = generator.integers(-8, 9, (INNER, OUTER))
    weights[0] = 127 if signed else 63
    biases = generator.integers(-300, 300, OUTER)
    x = s.input("x", ROWS, INNER)
    y = s.add("Gemm", x, s.constant(weights), s.constant(biases / 4), name="it")
    planned = in_form(plan_for(s.model(s.add("LeakyRelu", y, name="behind", alpha=0.5)), target), form)
    low = -128 if signed else 0
    read = QuantParams((0.25,), (low + 100,), 8, signed)
    written = QuantParams((1.0,), (low + 120,), 8, signed)
    behind = QuantParams((0.5,), (low + 120,), 8, signed)
    tensors = {name: TensorPlan("measured", grid) for name, grid in (("x", read), ("it.0", written), ("behind.0", behind))}
    planned = replace(planned, plan=replace(planned.plan, tensors=tensors))
    codes = generator.integers(-3, 4, (ROWS, INNER))
    codes[:, 0] = 0
    sums = codes @ weights + biases
    assert np.count_nonzero(sums % 4 == 2) > ROWS * OUTER / 8, "there are ties"
    quarters = np.clip(np.rint(sums / 4), low - written.zero_point[0], low + 255 - written.zero_point[0])
    # the reader halves what is negative, and has steps of a half, which hold that exactly
    wanted = np.clip(np.where(quarters < 0, quarters / 2, quarters), (low - low - 120) / 2, (255 - 120) / 2)
    got = result(planned, {"x": (codes / 4).astype(np.float32)})
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("bits", [(8, 6), (4, 8)])
def test_narrow_codes_and_weights_are_the_same_in_both_forms(bits: tuple[int, int], tmp_path: Path) -> None:
    planned = plan_for(network("Gemm, bias"), bits=bits)
    forms = [in_form(planned, form) for form in ("weighted", FORM)]
    feed = {"x": np.random.default_rng(6).uniform(-4.0, 4.0, (ROWS, INNER)).astype(np.float32)}
    plain, convolved = (result(each, feed) for each in forms)
    np.testing.assert_array_equal(convolved, plain)
    assert kernels_of(emitted(forms[1]), planned.target, tmp_path)["Transpose"] == 0


def test_an_open_number_of_rows_stays_open() -> None:
    s = Sketch()
    model = s.model(s.add("Sigmoid", s.add("MatMul", s.input("x", "rows", 4, INNER), s.normal(INNER, OUTER), name="it"), name="behind"))
    planned = plan_for(model)
    feed = {"x": np.random.default_rng(6).standard_normal((5, 4, INNER)).astype(np.float32)}
    plain, convolved = (result(in_form(planned, form), feed) for form in ("weighted", FORM))
    assert plain.shape == (5, 4, OUTER)
    np.testing.assert_array_equal(convolved, plain)


def tokens(target: str, *, read: bool = True) -> Planned:
    """A layer of a transformer, 256 tokens of 80 numbers to 160, whose result is read as codes or is the model's."""
    s = Sketch()
    y = s.add("Gemm", s.input("x", 256, 80), s.normal(80, 160), s.normal(160), name="it")
    return plan_for(s.model(s.add("LeakyRelu", y, name="behind") if read else y), target)


@pytest.mark.parametrize(
    ("target", "read", "form"),
    [
        ("arm64", True, FORM),  # 430 thousand instructions were counted of a convolution on a Cortex-A76, 500 of a QGemm
        ("arm64-a55", True, "weighted"),  # on a little core the convolution takes more
        ("arm64", False, "weighted"),  # a convolution cannot write float numbers
        ("x86", True, "weighted"),  # nothing was measured
    ],
)
def test_the_targets_price_decides_where_codes_are_written(target: str, read: bool, form: str) -> None:
    planned = tokens(target, read=read)
    assert planned.plan.ops["it"].form == form
    entry = planned.offers["it"]
    assert isinstance(entry, SupportedForm) and (entry.code_cost < entry.integer_cost) == (target == "arm64")
    wanted = entry.code_cost if form == FORM else entry.integer_cost
    cost = predict(planned.model, planned.plan, planned.offers, shapes_of(planned.model), planned.target)
    assert cost.kinds["Linear integer"] == (1, wanted)


def test_the_price_holds_for_all_that_is_written() -> None:
    """Cortex-A76: 15760 for the nodes, 2.496 for each number written, 0.07702 for each read, 0.09347 for each product."""
    entry = tokens("arm64").offers["it"]
    assert isinstance(entry, SupportedForm)
    assert entry.code_cost == pytest.approx(15760 + 2.496 * 256 * 160 + 0.07702 * 256 * 80 + 0.09347 * 256 * 80 * 160)


@pytest.mark.parametrize(
    ("target", "edited", "message"),
    [
        ("arm64", {"form": FORM, "writes": "float"}, "has the form linear_convolution, which writes codes, the plan says float"),
        ("x86", {"form": FORM}, "has the form weighted, the plan says linear_convolution"),
    ],
)
def test_a_plan_that_asks_for_it_in_vain_is_refused(target: str, edited: dict[str, Any], message: str) -> None:
    planned = tokens(target)
    plan: Plan = replace(planned.plan, ops={**planned.plan.ops, "it": replace(planned.plan.ops["it"], **edited)})
    with pytest.raises(UsageError, match=message):
        check_plan(plan, planned.model, planned.offers, planned.target, Path("plan.json"))


def test_a_conversion_runs_it_in_integer_as_simulated() -> None:
    """Two layers of a transformer by the default method: the first writes codes, the second float numbers."""
    s = Sketch()
    y = s.add("MatMul", s.input("x", 2, 128, 32), s.normal(32, 128, scale=0.2))
    y = s.silu(s.add("Add", y, s.normal(128)))
    proto = ir.to_proto(s.model(s.add("MatMul", y, s.normal(128, 32, scale=0.1))))
    report = convert(proto, None, Options(samples=4, threads=1, placement="all"))
    assert sorted(op.form for op in report.plan.ops.values() if op.op_type in ("Gemm", "MatMul")) == [FORM, "weighted"]
    assert report.verdict is not None and report.verdict.parity_db is not None and report.verdict.parity_db > 100.0
    assert report.verdict.integer_coverage.coverage == 1.0
