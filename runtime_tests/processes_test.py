from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.errors import ModelError
from converter.testing.sketch import Sketch
from runtime_tests.child import peak_memory
from runtime_tests.model_pair import open_model_pair
from runtime_tests.processes import OLDEST, measure_memory, measure_version, predictions
from runtime_tests.testing.files import MakeFiles

has_oldest = pytest.mark.skipif(not OLDEST.is_dir(), reason=f"there is no older ONNX Runtime in {OLDEST}; the Makefile installs one")


def test_memory_is_that_of_a_fresh_process(tmp_path: Path) -> None:
    """This process has loaded torch, which must not show in its children; 32 MB of weights must."""
    sketch = Sketch()
    large = tmp_path / "large.onnx"
    large.write_bytes(
        ir.to_proto(sketch.model(sketch.add("MatMul", sketch.input("x", 1, 2048), sketch.normal(2048, 4096), name="y"))).SerializeToString()
    )
    small = tmp_path / "small.onnx"
    sketch = Sketch()
    small.write_bytes(ir.to_proto(sketch.model(sketch.add("Relu", sketch.input("x", 1, 2048), name="y"))).SerializeToString())
    found = measure_memory(open_model_pair(large, small, count=1))
    assert 10e6 < found.process < found.int8_peak < found.float_peak - 2048 * 4096 * 4
    assert found.float_peak < peak_memory() / 2
    assert (found.float_size, found.int8_size) == (large.stat().st_size, small.stat().st_size)


@has_oldest
def test_the_oldest_runtime_gives_the_same(make_files: MakeFiles) -> None:
    files = make_files()
    found = measure_version(open_model_pair(files.floats, files.int8), OLDEST)
    assert found.other.startswith("ONNX Runtime 1.19.")
    assert found.reference != found.other
    assert (found.predictions, found.equal, found.largest) == (8, 8, 0.0)


@has_oldest
def test_a_model_that_does_not_run_there_is_told(make_files: MakeFiles) -> None:
    def renew(model: onnx.ModelProto) -> None:
        model.ir_version = 12

    files = make_files()
    model_pair = open_model_pair(files.floats, files.int8)
    files.edit(renew)
    with pytest.raises(ModelError, match=r"does not run in ONNX Runtime 1\.19"):
        measure_version(model_pair, OLDEST)


def test_predictions_by_hand() -> None:
    wanted = {"scores": np.array([[[0.0, 2.0]], [[3.0, 4.0]]])}
    got = {"scores": np.array([[[0.0, 2.0]], [[3.0, 2.0]]])}
    found = predictions("here", "there", wanted, got)
    assert (found.predictions, found.equal, found.largest) == (2, 1, 0.5)
