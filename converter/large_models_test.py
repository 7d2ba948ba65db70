"""Models over 2 GB: the same conversion with weights in files. Here everything over a few bytes counts as large.

``BRIDGEQUANT_LARGE=1`` converts one that is, which takes minutes and 10 GB of disk.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from converter.cli.main import main
from converter.errors import BoundMissedError, UsageError
from converter.graph import weight_files
from converter.options import Options
from converter.pipeline import convert
from converter.testing.models import hybrid_model

ROOT = Path(__file__).parents[1]
FEW = Options(method="minmax", samples=4, threads=1)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, of this test alone; small models count as large."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(weight_files, "MOST_IN_MEMORY", 4000)
    monkeypatch.setattr(weight_files, "MOST_IN_ONE_FILE", 4000)
    monkeypatch.setattr(weight_files, "_SMALL", 200)
    return folder


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A hybrid with its weights in a file beside it, in a folder of its own."""
    path = tmp_path / "models" / "in.onnx"
    path.parent.mkdir()
    onnx.save(hybrid_model(), path, save_as_external_data=True, location="in.bin", size_threshold=0)
    return path


def answers(path: Path) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    result: npt.NDArray[np.float32] = session.run(None, {"image": image})[0]
    return result


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("method", ["minmax", pytest.param("q-hyvit", marks=pytest.mark.slow)])
def test_what_is_written_is_what_a_small_model_becomes(temporary: Path, large: Path, tmp_path: Path, method: str) -> None:
    folder = large.parent
    words = ["--method", method, "--samples", "4", "--threads", "1", "-q"]
    assert main([str(large), str(folder / "out.onnx"), *words]) == 0
    weight_files.MOST_IN_MEMORY = weight_files.MOST_IN_ONE_FILE = 1 << 30  # put back by the fixture
    assert main([str(large), str(tmp_path / "small.onnx"), *words]) == 0
    assert set(contents(folder)) == {"in.onnx", "in.bin", "out.onnx", "out.onnx.data"}
    # sessions over files do not lay weights out anew, and no sum behind a product joins it: float sums may differ in the last bit
    np.testing.assert_allclose(answers(folder / "out.onnx"), answers(tmp_path / "small.onnx"), rtol=0, atol=1e-5)
    onnx.checker.check_model(folder / "out.onnx", full_check=True)
    gc.collect()
    assert not list(temporary.iterdir())


def test_a_failure_leaves_both_files_of_an_older_output_and_no_others(temporary: Path, large: Path) -> None:
    folder = large.parent
    (folder / "out.onnx").write_bytes(b"old model")
    (folder / "out.onnx.data").write_bytes(b"old data")
    before = contents(folder)
    with pytest.raises(BoundMissedError):
        convert(large, folder / "out.onnx", Options(method="minmax", samples=4, threads=1, min_sqnr=1000.0))
    assert contents(folder) == before
    gc.collect()
    assert not list(temporary.iterdir())


def test_a_disk_that_fills_while_weights_are_written_leaves_the_older_output(
    temporary: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = large.parent
    (folder / "out.onnx").write_bytes(b"old model")
    before = contents(folder)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        convert(large, folder / "out.onnx", FEW)
    assert contents(folder) == before


def test_temporary_files_that_cannot_be_written_are_refused_with_a_way_out(temporary: Path, large: Path) -> None:
    temporary.rmdir()
    with pytest.raises(UsageError, match="temporary files") as caught:
        convert(large, large.parent / "out.onnx", FEW)
    assert "TMPDIR" in caught.value.hint


def test_the_data_of_the_output_may_not_be_those_of_the_input(temporary: Path, large: Path) -> None:
    path = large.with_name("out.onnx")
    (path.with_name("out.onnx.data")).symlink_to(large.with_name("in.bin"))
    with pytest.raises(UsageError, match="same file"):
        convert(large, path, FEW)


def test_the_model_of_a_report_needs_no_files(temporary: Path, large: Path) -> None:
    report = convert(large, options=FEW)
    assert report.model is not None
    gc.collect()
    assert not list(temporary.iterdir())
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in report.model.graph.initializer)
    onnxruntime.InferenceSession(report.model.SerializeToString(), providers=["CPUExecutionProvider"])


def save_matrices(path: Path, rows: int, columns: int, count: int) -> int:
    """A perceptron of matrices of so many rows and columns, and as many of the opposite shape; returns the bytes of its weights."""
    generator = np.random.default_rng(0)
    weights, nodes, offset, last = [], [], 0, "x"
    with open(path.with_name("weights.bin"), "wb") as file:
        for place in range(2 * count):
            shape = (rows, columns) if place % 2 == 0 else (columns, rows)
            array = generator.standard_normal(shape, np.float32) * np.float32((2 / shape[0]) ** 0.5)
            tensor = TensorProto(name=f"w{place}", data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
            for key, value in {"location": "weights.bin", "offset": offset, "length": array.nbytes}.items():
                tensor.external_data.add(key=key, value=str(value))
            file.write(array.data)
            offset += array.nbytes
            weights.append(tensor)
            product, last_one = f"product{place}", place == 2 * count - 1
            nodes.append(helper.make_node("MatMul", [last, tensor.name], ["y" if last_one else product]))
            last = f"relu{place}"
            nodes += [] if last_one else [helper.make_node("Relu", [product], [last])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, rows]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "matrices", ends[:1], ends[1:], weights)
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())
    return offset


@pytest.mark.slow
@pytest.mark.skipif("BRIDGEQUANT_LARGE" not in os.environ, reason="takes minutes and 10 GB of disk: set BRIDGEQUANT_LARGE=1")
def test_over_2_gb_in_three_times_its_size(tmp_path: Path) -> None:
    size = save_matrices(tmp_path / "in.onnx", 16384, 8192, 2)
    assert size > onnx.checker.MAXIMUM_PROTOBUF
    words = ["--method", "minmax", "--samples", "4", "--json", "-", "-q"]
    command = [sys.executable, "convert.py", str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx"), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(json.loads(done.stdout)["peak_memory"]) <= 3 * size
