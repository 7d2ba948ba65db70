"""A trained reference network from its weights to a verdict, as ``make validate`` does it for all of them, but with a quick method."""

from __future__ import annotations

import json
from pathlib import Path

from converter.options import Options
from converter.pipeline import convert
from models.export import build, export_model
from runtime_tests.command_line import main
from runtime_tests.validate import CHECKPOINTS, GATES

NAME = "mobilevit_xxs"


def test_a_trained_network_keeps_the_gates_of_this_repository(tmp_path: Path) -> None:
    floats, int8, figures = tmp_path / "float.onnx", tmp_path / "int8.onnx", tmp_path / "figures.json"
    floats.write_bytes(export_model(build(NAME, checkpoint=CHECKPOINTS / f"{NAME}.safetensors")))
    convert(floats, int8, Options(method="mse", threads=1))
    flags = [str(floats), str(int8), "--gates", str(GATES / "model.toml"), "--json", str(figures), "--seconds", "0.2"]
    assert main(flags) == 0
    assert json.loads(figures.read_text())["figures"]["coverage"] > 95.0
