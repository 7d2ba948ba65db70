from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converter.errors import ModelError
from converter.graph import weight_files
from converter.load.model import load
from converter.testing.models import make_model

DATA = "weights.bin"


@pytest.fixture(autouse=True, params=["in memory", "in files"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where weights are kept: a large model is refused in the same words as any other."""
    if request.param == "in files":
        monkeypatch.setattr(weight_files, "MOST_IN_MEMORY", 0)
        monkeypatch.setattr(weight_files, "_SMALL", 0)
    return str(request.param)


def save(folder: Path, *, constant: bool = False) -> Path:
    """A model whose one weight of 64 bytes, 0 to 15, lies in a second file after 16 other bytes."""
    weight = np.arange(16, dtype=np.float32).reshape(4, 4)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = make_model(nodes, [("x", TensorProto.FLOAT, [1, 4])], [("y", TensorProto.FLOAT, [1, 4])], initializers={"w": weight})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": DATA, "offset": "16", "length": "64"}.items():
        tensor.external_data.add(key=key, value=value)
    if constant:
        node = helper.make_node("Constant", [], ["w"], value=tensor)
        del model.graph.initializer[:]
        model.graph.node.insert(0, node)
    folder.mkdir(exist_ok=True)
    (folder / DATA).write_bytes(bytes(16) + weight.tobytes())
    (folder / "in.onnx").write_bytes(model.SerializeToString())
    return folder / "in.onnx"


def edited(path: Path, **entries: str | None) -> Path:
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    old: dict[str, Any] = {e.key: e.value for e in tensor.external_data}
    del tensor.external_data[:]
    for key, value in {**old, **entries}.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(path)
    assert caught.value.where == str(path) and caught.value.hint
    return caught.value.what


@pytest.mark.parametrize("constant", [False, True])
def test_external_data_is_read_and_counted(tmp_path: Path, constant: bool) -> None:
    path = save(tmp_path, constant=constant)
    source = load(path)
    assert source.bytes == path.stat().st_size + 80
    assert source.external == (tmp_path.resolve() / DATA,)
    tensor = source.model.graph.node[0].attribute[0].t if constant else source.model.graph.initializer[0]
    assert np.array_equal(weight_files.array_of(tensor).ravel(), np.arange(16))


def test_data_are_looked_for_beside_the_model_not_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "model")
    (tmp_path / DATA).write_bytes(bytes(80))
    monkeypatch.chdir(tmp_path)
    source = load(Path("model/in.onnx"))
    assert weight_files.array_of(source.model.graph.initializer[0])[3, 3] == 15
    assert refusal_after_removal(path).startswith("external data file 'weights.bin' is missing")


def refusal_after_removal(path: Path) -> str:
    (path.parent / DATA).unlink()
    return refusal(path)


def test_missing_data_name_the_tensor(tmp_path: Path) -> None:
    assert "'w'" in refusal_after_removal(save(tmp_path))


@pytest.mark.parametrize("location", ["{folder}/weights.bin", "../weights.bin", "sub/../../weights.bin", "C:\\weights.bin", ""])
def test_paths_that_leave_the_folder(tmp_path: Path, location: str) -> None:
    path = save(tmp_path / "model")
    (tmp_path / DATA).write_bytes(bytes(80))
    assert "outside" in refusal(edited(path, location=location.format(folder=tmp_path)))


def test_symbolic_link_that_leaves_the_folder(tmp_path: Path) -> None:
    path = save(tmp_path / "model")
    (path.parent / DATA).rename(tmp_path / "secret.bin")
    (path.parent / DATA).symlink_to(tmp_path / "secret.bin")
    assert "outside" in refusal(path)


def test_folder_behind_a_symbolic_link(tmp_path: Path) -> None:
    path = save(tmp_path / "model")
    (path.parent / "data").symlink_to(tmp_path)
    (tmp_path / DATA).write_bytes(bytes(80))
    assert "outside" in refusal(edited(path, location=f"data/{DATA}"))


def test_symbolic_link_to_the_model_itself_is_followed(tmp_path: Path) -> None:
    path = save(tmp_path / "model")
    (tmp_path / "link.onnx").symlink_to(path)
    assert load(tmp_path / "link.onnx").external[0].parent == path.resolve().parent


@pytest.mark.parametrize("location", ["loop", "x" * 300, "nul\0byte", "."])
def test_names_that_are_no_file(tmp_path: Path, location: str) -> None:
    path = save(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refusal(edited(path, location=location))


@pytest.mark.parametrize("size", [0, 15, 16, 79])
def test_truncated_data(tmp_path: Path, size: int) -> None:
    path = save(tmp_path)
    (tmp_path / DATA).write_bytes(bytes(size))
    assert "external data" in refusal(path)
    assert "external data" in refusal(edited(path, length=None))


@pytest.mark.parametrize(
    "entries", [{"offset": "-1"}, {"offset": "many"}, {"length": "-1"}, {"length": "32"}, {"length": "99999999999999"}, {"offset": "10000"}]
)
def test_offset_and_length_that_do_not_fit(tmp_path: Path, entries: dict[str, str]) -> None:
    assert "external data" in refusal(edited(save(tmp_path), **entries))


def test_without_a_length_the_rest_of_the_file_must_fit(tmp_path: Path) -> None:
    path = edited(save(tmp_path), length=None)
    assert load(path).external
    (tmp_path / DATA).write_bytes(bytes(100))
    assert "too long" in refusal(path)
