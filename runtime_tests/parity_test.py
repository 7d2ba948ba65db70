from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from converter.conftest import hybrid_model
from converter.errors import UsageError
from converter.options import Options
from converter.pipeline import convert
from converter.plan import OpPlan, Plan, plan_from_json, plan_to_json
from converter.verify import LEAST_PARITY_DB
from runtime_tests.conftest import Files, MakeFiles, damage_head
from runtime_tests.parity import measure_parity, measure_plan_parity
from runtime_tests.subject import open_subject


def test_a_model_that_is_not_quantized_equals_itself(make_files: MakeFiles) -> None:
    files = make_files()
    assert measure_parity(open_subject(files.floats, files.floats)).db > 100


def test_a_sound_model_runs_as_it_is_written(make_files: MakeFiles) -> None:
    files = make_files()
    assert measure_parity(open_subject(files.floats, files.int8)).db > 40


def test_a_bias_on_a_wrong_scale_is_found(make_files: MakeFiles) -> None:
    """The runtime fuses the Gemm without a look at the scale of its bias, and is silently wrong."""
    files = make_files()
    files.edit(damage_head)
    found = measure_parity(open_subject(files.floats, files.int8))
    assert found.db < LEAST_PARITY_DB


def converted(folder: Path, bits: str = "W8A6") -> tuple[Files, Path]:
    """A small hybrid network, what the converter made of it, and the plan."""
    files, plan = Files(folder / "float.onnx", folder / "int8.onnx"), folder / "plan.json"
    onnx.save(hybrid_model(), files.floats)
    convert(files.floats, files.int8, Options(method="repq-vit", bits=bits, placement="all", samples=4), plan_out=plan)
    return files, plan


def test_a_converted_model_computes_what_its_plan_says(tmp_path: Path) -> None:
    """With copies in front of layers, folds and logarithmic grids, all of which the plan's model has and the float model has not."""
    files, plan = converted(tmp_path)
    assert plan_from_json(plan.read_text(), plan).folds
    found = measure_plan_parity(open_subject(files.floats, files.int8), plan)
    assert found.db > 40 and found.reference == "a simulation of the plan"


def test_a_plan_that_was_edited_since_is_not_what_runs(tmp_path: Path) -> None:
    files, path = converted(tmp_path)
    plan = plan_from_json(path.read_text(), path)
    coarse = {n: replace(t, grid=t.grid.rescaled(3.0)) if t.fate == "measured" and t.grid else t for n, t in plan.tensors.items()}
    path.write_text(plan_to_json(plan.with_ops(coarse, plan.ops)))
    assert measure_plan_parity(open_subject(files.floats, files.int8), path).db < LEAST_PARITY_DB


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda p: replace(p, bits="W4A4"), "the plan's width is W4A4, that of the model W8A6"),
        (lambda p: replace(p, target="x86"), "the plan's target is x86, that of the model arm64"),
        (lambda p: p.with_ops(p.tensors, {**p.ops, "elsewhere": OpPlan("Conv", "float")}), "operator 'elsewhere' that the model lacks"),
    ],
)
def test_a_plan_of_something_else_is_refused(change: Callable[[Plan], Plan], complaint: str, tmp_path: Path) -> None:
    files, path = converted(tmp_path)
    path.write_text(plan_to_json(change(plan_from_json(path.read_text(), path))))
    with pytest.raises(UsageError, match=complaint):
        measure_plan_parity(open_subject(files.floats, files.int8), path)
