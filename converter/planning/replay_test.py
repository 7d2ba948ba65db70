"""The model that a plan is about, made again, is the one that the conversion planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter import pipeline
from converter.errors import UsageError
from converter.load.model import load
from converter.options import Options
from converter.pipeline import convert
from converter.planning.make import Planned
from converter.planning.replay import planned_model, read_plan
from converter.testing.models import hybrid_model

FEED = {"image": np.random.default_rng(9).random((1, 3, 32, 32), dtype=np.float32)}


def wiring(model: ir.Model) -> list[tuple[Any, ...]]:
    """All nodes, what they are, and what they read and write."""
    return [(n.name, n.op_type, [v.name if v is not None else "" for v in n.inputs], [o.name for o in n.outputs]) for n in model.graph]


@pytest.mark.parametrize(
    "options",
    [
        {"method": "repq-vit", "bits": "W8A6", "placement": "all"},
        {"method": "fq-vit", "full": True, "exclude": ("Softmax",)},
        {"method": "ptq4vit", "bits": "W6A6", "exclude": ("/mlp/*",), "placement": "all"},
        {"method": "mse", "bits": "W4A4", "exclude": ("MatMul",), "target": "x86", "placement": "all"},
    ],
)
def test_it_is_node_by_node_the_model_that_was_planned(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, plan = tmp_path / "float.onnx", tmp_path / "plan.json"
    onnx.save(hybrid_model(), source)
    made: list[Planned] = []

    def remembered(*arguments: Any) -> Planned:
        made.append(original(*arguments))
        return made[0]

    original = pipeline.make_plan
    monkeypatch.setattr(pipeline, "make_plan", remembered)
    convert(source, tmp_path / "int8.onnx", Options(**options, samples=3), plan_out=plan, dry_run=True)
    again, _ = planned_model(load(source), read_plan(plan), [FEED], plan)
    assert wiring(again) == wiring(made[0].model)


@pytest.mark.parametrize(("content", "complaint"), [(None, "cannot be read"), (b"\xff\xfe", "it is not text"), (b"{}", "not a plan")])
def test_what_is_no_plan_is_refused(content: bytes | None, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=complaint):
        read_plan(path)
