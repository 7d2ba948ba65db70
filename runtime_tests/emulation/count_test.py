from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from converter.errors import ModelError
from runtime_tests.emulation.count import count
from runtime_tests.emulation.testing.stand_in import PER_REGION


def test_models_are_counted_in_their_order(model: Path, no_emulator: None) -> None:
    first, second = count([model, model], "cortex-a72", runs=2)
    assert first.instructions == second.instructions == (PER_REGION, PER_REGION)
    assert first.digest == hashlib.sha256(model.read_bytes()).hexdigest()
    assert first.machine.core == "cortex-a72"


def test_inputs_of_a_file_are_counted_one_by_one(model: Path, no_emulator: None, tmp_path: Path) -> None:
    np.savez(tmp_path / "three.npz", image=np.zeros((3, 1, 3, 32, 32), np.float32))
    (found,) = count([model], "max", inputs=tmp_path / "three.npz")
    assert len(found.instructions) == 3


def test_a_model_that_does_not_run_is_named(no_emulator: None, tmp_path: Path, model: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.read_bytes().replace(b"Sigmoid", b"Sigmoix"))
    with pytest.raises(ModelError) as caught:
        count([broken], "cortex-a53")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("error: it does not run on cortex-a53: ")
    assert "Sigmoix" in lines[0]
    assert lines[1] == f"  at: {broken}"
    assert len(lines) == 3
