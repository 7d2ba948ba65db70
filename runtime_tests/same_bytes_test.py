"""The same command gives the same bytes, for a trained network too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.export import build, export_model
from runtime_tests.validate import CHECKPOINTS

ROOT = Path(__file__).parents[1]
NAME = "mobilevit_xxs"


@pytest.mark.slow
def test_two_processes_convert_a_trained_network_to_the_same_bytes(tmp_path: Path) -> None:
    """With other hash seeds and another number of threads; at 6 bits, where weights are searched as well."""
    source = tmp_path / "float.onnx"
    source.write_bytes(export_model(build(NAME, checkpoint=CHECKPOINTS / f"{NAME}.safetensors")))
    written: list[tuple[bytes, bytes]] = []
    for seed in ("1", "2"):
        output, plan = tmp_path / f"int8_{seed}.onnx", tmp_path / f"plan_{seed}.json"
        words = [ROOT / "convert.py", source, output, "--plan-out", plan, "--bits", "W6A6", "--samples", "8", "--threads", seed, "-q"]
        subprocess.run([sys.executable, *map(str, words)], env={**os.environ, "PYTHONHASHSEED": seed}, check=True)
        written.append((output.read_bytes(), plan.read_bytes()))
    assert written[0] == written[1]
