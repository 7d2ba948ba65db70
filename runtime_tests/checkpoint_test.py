"""A trained reference network from its weights to a verdict, as ``make validate`` does it for all of them, but with a quick method."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from converter.options import Options
from converter.pipeline import convert
from models.export import build, export_model
from runtime_tests.command_line import main
from runtime_tests.validate import CHECKPOINTS, GATES

pytestmark = pytest.mark.slow

NAME = "mobilevit_xxs"


def test_a_trained_network_keeps_the_gates_of_this_repository(tmp_path: Path) -> None:
    floats, int8, plan, figures = (tmp_path / name for name in ("float.onnx", "int8.onnx", "plan.json", "figures.json"))
    floats.write_bytes(export_model(build(NAME, checkpoint=CHECKPOINTS / f"{NAME}.safetensors")))
    convert(floats, int8, Options(method="mse", threads=1), plan_out=plan)
    flags = [
        str(floats),
        str(int8),
        "--plan-in",
        str(plan),
        "--gates",
        str(GATES / "model.toml"),
        "--json",
        str(figures),
        "--seconds",
        "0.2",
    ]
    assert main(flags) == 0
    content = json.loads(figures.read_text())
    assert content["figures"]["coverage"] > 95.0
    assert content["parity"]["reference"] == "a simulation of the plan"
