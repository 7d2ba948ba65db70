"""Every model has the kernel that it is about, and those set side by side do the same work."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.runtime.session import open_session, run_session
from converter.targets import find_target
from converter.testing.sketch import kernels_of, settings_for
from tools.profile.probes import feeds, probe_model
from tools.upstream.models import CASES, MAC, Case, amount, depth, joined, model_of

BY_NAME = {case.name: case for case in CASES}
EVERY = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
ARM = find_target("arm64")


@EVERY
def test_the_runtime_makes_the_kernels_that_are_counted(case: Case, tmp_path: Path) -> None:
    """With int8 activations, as on ARM64."""
    found = kernels_of(model_of(case), ARM, tmp_path)
    assert any(kernel in found for kernel in case.kernels)
    if len(case.kernels) > 1 and case.gated:
        assert all(found[kernel] == 1 for kernel in case.kernels)


@EVERY
def test_it_answers_as_the_operator_in_float(case: Case) -> None:
    model = model_of(case)
    feed = feeds(ir.from_proto(model))
    (got,) = run_session(open_session(model, settings=settings_for(ARM)), feed).values()
    single = probe_model([case.probe])
    (expected,) = run_session(open_session(ir.to_proto(single)), feed).values()
    if case.gated:
        expected = expected * feed["p0000_x0"]
    if case.on_codes:  # most of 256 shares are about as large as a step
        assert np.abs(got - expected).max() <= 2 * 2.0**-8
    else:
        assert float(np.mean((got - expected) ** 2)) < 10**-2.5 * float(np.mean(expected**2))


@EVERY
def test_the_same_model_comes_out_each_time(case: Case) -> None:
    assert model_of(case).SerializeToString(deterministic=True) == model_of(case).SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("conv_1x1_128", "conv_1x2_64"),
        ("stem", "stem_unfolded"),
        ("linear", "linear_as_conv"),
        ("softmax", "softmax_codes"),
        ("layer_norm", "instance_norm"),
    ],
)
def test_a_model_and_the_one_beside_it_do_as_much(one: str, other: str) -> None:
    first, second = BY_NAME[one], BY_NAME[other]
    assert (amount(first), depth(first)) == (amount(second), depth(second))


def test_scores_differ_in_depth_alone() -> None:
    found = [BY_NAME[f"scores_{size}"] for size in (16, 32, 64)]
    assert [depth(case) for case in found] == [16, 32, 64]
    assert len({amount(case) // depth(case) for case in found}) == 1


def test_amounts_are_those_of_the_layer() -> None:
    assert amount(BY_NAME["stem"]) == 128 * 128 * 16 * 27
    assert amount(BY_NAME["conv_3x3_48"]) == 32 * 32 * 48 * 48 * 9
    assert amount(BY_NAME["linear"]) == 1024 * 64 * 192
    assert amount(BY_NAME["sigmoid"]) == 64 * 64 * 32


def test_models_stand_side_by_side_in_one() -> None:
    one = joined([model_of(case, place) for place, case in enumerate(CASES)])
    onnx.checker.check_model(one)
    operators = Counter(node.op_type for node in one.graph.node)
    assert operators["Conv"] == sum(case.probe.op_type == "Conv" for case in CASES)
    assert sum(case.per == MAC for case in CASES) == operators["Conv"] + operators["MatMul"] + operators["Gemm"]
