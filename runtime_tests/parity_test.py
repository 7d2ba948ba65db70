from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from converter.errors import UsageError
from converter.options import Options
from converter.pipeline import convert
from converter.plan.records import OpPlan, Plan
from converter.planning.replay import read_plan
from converter.quantization.bit_widths import BitWidths
from converter.testing.models import hybrid_model
from converter.testing.plans import equalizations_of, quantizers_of
from converter.verify.parity import LEAST_PARITY_DB
from runtime_tests.model_pair import open_model_pair
from runtime_tests.parity import check_plan_is_of, measure_parity, measure_plan_parity
from runtime_tests.testing.files import Files, MakeFiles, damage_head


def test_a_model_that_is_not_quantized_equals_itself(make_files: MakeFiles) -> None:
    files = make_files()
    assert measure_parity(open_model_pair(files.floats, files.floats)).db > 100


def test_a_sound_model_runs_as_it_is_written(make_files: MakeFiles) -> None:
    files = make_files()
    assert measure_parity(open_model_pair(files.floats, files.int8)).db > 40


def test_a_bias_on_a_wrong_scale_is_found(make_files: MakeFiles) -> None:
    """The runtime fuses the Gemm without a look at the scale of its bias, and is silently wrong."""
    files = make_files()
    files.edit(damage_head)
    found = measure_parity(open_model_pair(files.floats, files.int8))
    assert found.db < LEAST_PARITY_DB


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Path]:
    """A small hybrid network, what the converter made of it, and the plan."""
    folder = tmp_path_factory.mktemp("converted")
    files, plan = Files(folder / "float.onnx", folder / "int8.onnx"), folder / "plan.json"
    onnx.save(hybrid_model(), files.floats)
    convert(files.floats, files.int8, Options(method="repq-vit", bits="W8A6", placement="all", samples=4), plan_out=plan)
    return files, plan


def test_a_converted_model_computes_what_its_plan_says(converted: tuple[Files, Path]) -> None:
    """With copies in front of layers, equalizations and logarithmic grids, which the plan's model has and the float model has not."""
    files, path = converted
    plan = read_plan(path)
    assert equalizations_of(plan) and quantizers_of(plan)
    found = measure_plan_parity(open_model_pair(files.floats, files.int8), plan, path)
    assert found.db > 40 and found.reference == "a simulation of the plan"


def test_a_plan_that_was_edited_since_is_not_what_runs(converted: tuple[Files, Path]) -> None:
    files, path = converted
    plan = read_plan(path)
    coarse = {n: replace(t, params=t.params.rescaled(3.0)) if t.kind == "measured" and t.params else t for n, t in plan.tensors.items()}
    edited = plan.with_ops(coarse, plan.ops)
    assert measure_plan_parity(open_model_pair(files.floats, files.int8), edited, path).db < LEAST_PARITY_DB


def without(plan: Plan, op_type: str) -> Plan:
    return plan.with_ops(plan.tensors, {name: op for name, op in plan.ops.items() if op.op_type != op_type})


def changed(plan: Plan, which: str, **changes: Any) -> Plan:
    return plan.with_ops(plan.tensors, {n: replace(op, **changes) if op.op_type == which else op for n, op in plan.ops.items()})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda p: replace(p, bits=BitWidths(4, 4)), "the plan's width is W4A4, that of the model W8A6"),
        (lambda p: replace(p, target="x86"), "the plan's target is x86, that of the model arm64"),
        (lambda p: p.with_ops(p.tensors, {**p.ops, "elsewhere": OpPlan("Conv", "float")}), "operator 'elsewhere' that the model lacks"),
        (lambda p: without(p, "Conv"), "says nothing of operator"),
        (lambda p: changed(p, "Conv", op_type="Gemm"), "has another type"),
        (lambda p: changed(p, "Conv", constants={}), "cannot be carried out"),
        (lambda p: changed(p, "Conv", bias=(1.0,) * 7), "cannot be carried out"),
        (lambda p: p.with_ops({}, p.ops), "cannot be carried out"),
    ],
)
def test_a_plan_of_something_else_or_with_parts_missing_is_refused(
    change: Callable[[Plan], Plan], complaint: str, converted: tuple[Files, Path]
) -> None:
    files, path = converted
    model_pair, plan = open_model_pair(files.floats, files.int8), change(read_plan(path))

    def whole() -> None:
        check_plan_is_of(plan, model_pair, path)
        measure_plan_parity(model_pair, plan, path)

    with pytest.raises(UsageError, match=complaint):
        whole()
