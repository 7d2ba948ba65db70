"""Weights of models in files: what is moved there, read from there, and let go."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.graph.weight_files import (
    WeightFolder,
    array_of,
    folder_of,
    is_in_file,
    model_bytes,
    offload,
    offload_constants,
    read_back,
    release_pages,
)

LARGE = np.arange(160 * 120, dtype=np.float32).reshape(160, 120)
SMALL = np.ones(120, np.float32)


def layer() -> onnx.ModelProto:
    """One Gemm with weights of 77 kB and a bias."""
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="gemm")],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 160])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 120])],
        [numpy_helper.from_array(LARGE, "w"), numpy_helper.from_array(SMALL, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="test")


def test_large_weights_go_to_the_file_and_come_back(tmp_path: Path) -> None:
    model = layer()
    before = model.SerializeToString()
    light = offload(model, tmp_path)
    assert model.SerializeToString() == before
    assert [is_in_file(t) for t in light.graph.initializer] == [True, False] and folder_of(light) == tmp_path
    assert light.ByteSize() < 1500 and model_bytes(light) > LARGE.nbytes
    assert np.array_equal(array_of(light.graph.initializer[0]), LARGE)
    assert read_back(light).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_new_constants_of_such_a_model_follow(tmp_path: Path) -> None:
    model: ir.Model = ir.from_proto(offload(layer(), tmp_path))
    bias = model.graph.initializers["b"]
    bias.const_value = ir.tensor(2 * LARGE, name="b")
    offload_constants(model)
    proto = ir.to_proto(model)
    assert all(is_in_file(t) for t in proto.graph.initializer)
    assert np.array_equal(array_of(proto.graph.initializer[1]), 2 * LARGE)


def test_constants_of_an_ordinary_model_stay_in_it(tmp_path: Path) -> None:
    model: ir.Model = ir.from_proto(layer())
    offload_constants(model)
    assert folder_of(ir.to_proto(model)) is None


def test_what_was_let_go_can_be_read_again(tmp_path: Path) -> None:
    model: ir.Model = ir.from_proto(offload(layer(), tmp_path))
    array = model.graph.initializers["w"].const_value.numpy()  # type: ignore[union-attr]
    release_pages(model)
    assert np.array_equal(array, LARGE)


def test_a_folder_goes_with_its_owner() -> None:
    folder = WeightFolder()
    path = folder.path
    assert path.is_dir()
    del folder
    gc.collect()
    assert not path.exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="who is running is read from /proc")
def test_a_folder_that_a_killed_process_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = "import os\nfrom converter.graph.weight_files import WeightFolder\nf = WeightFolder()\nos._exit(9)"
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert len(list(tmp_path.iterdir())) == 1
    folder = WeightFolder()
    assert list(tmp_path.iterdir()) == [folder.path]
