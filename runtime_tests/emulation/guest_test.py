from __future__ import annotations

import ctypes
import dataclasses
import errno
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from runtime_tests.emulation.emulator import Job
from runtime_tests.emulation.guest import BEGIN, END, MARK, capabilities, load_tensors, main, marker, run_jobs, save_tensors

Marks = list[tuple[int, int]]


def as_jobs(*jobs: Job) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(json.dumps([dataclasses.asdict(job) for job in jobs], default=str))
    return found


def image(samples: int = 1) -> dict[str, Any]:
    return {"image": np.random.default_rng(0).standard_normal((samples, 1, 3, 32, 32)).astype(np.float32)}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    save_tensors(tmp_path / "inputs.npz", image(2))
    return tmp_path / "inputs.npz"


@settings(max_examples=30, deadline=None)
@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), unique=True))
def test_tensors_may_have_any_name(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Exporters make paths of names, and NumPy's own format could not take '/a', nor 'file'."""
    path = tmp_path_factory.getbasetemp() / "tensors.npz"
    save_tensors(path, {name: np.full((2,), place, np.int8) for place, name in enumerate(names)})
    found = load_tensors(path)
    assert list(found) == names
    assert [int(array[0]) for array in found.values()] == list(range(len(names)))
    assert all(array.dtype == np.int8 for array in found.values())


def test_only_wanted_tensors_are_read(tmp_path: Path) -> None:
    save_tensors(tmp_path / "t.npz", {"file": np.zeros(1), "/a/b": np.ones(2)})
    assert list(load_tensors(tmp_path / "t.npz", ["/a/b", "elsewhere"])) == ["/a/b"]


def test_every_sample_and_repetition_is_a_region_of_its_own(model: Path, inputs: Path) -> None:
    marks: Marks = []
    results = run_jobs(as_jobs(Job(model, (inputs,), runs=3), Job(model, (inputs,))), lambda *mark: marks.append(mark))
    assert results == [{"regions": [0, 1, 2, 3, 4, 5], "error": None}, {"regions": [6, 7], "error": None}]
    assert marks == [(region, edge) for region in range(8) for edge in (BEGIN, END)]


def test_outputs_are_the_runtimes(model: Path, inputs: Path, tmp_path: Path) -> None:
    job = Job(model, (inputs,), outputs=tmp_path / "outputs.npz", runs=0)
    assert run_jobs(as_jobs(job), lambda *_: None) == [{"regions": [], "error": None}]
    session = onnxruntime.InferenceSession(str(model))
    wanted = [session.run(None, {"image": sample})[0] for sample in image(2)["image"]]
    found = load_tensors(tmp_path / "outputs.npz")["logits"]
    assert found.shape == (2, 1, 10)
    np.testing.assert_allclose(found, np.stack(wanted), rtol=1e-4, atol=1e-5)


def test_bound_runs_give_the_same_outputs(model: Path, inputs: Path, tmp_path: Path) -> None:
    free, bound = (Job(model, (inputs,), outputs=tmp_path / f"{flag}.npz", bound=flag) for flag in (False, True))
    run_jobs(as_jobs(free, bound), lambda *_: None)
    np.testing.assert_array_equal(load_tensors(tmp_path / "True.npz")["logits"], load_tensors(tmp_path / "False.npz")["logits"])


def test_a_job_that_fails_says_why_and_leaves_the_others_alone(model: Path, inputs: Path, tmp_path: Path) -> None:
    save_tensors(tmp_path / "wrong.npz", {"image": np.zeros((1, 1, 3, 8, 9), np.float32)})
    marks: Marks = []
    jobs = as_jobs(Job(tmp_path / "absent.onnx"), Job(model, (tmp_path / "wrong.npz",)), Job(model, (inputs,)))
    absent, wrong, right = run_jobs(jobs, lambda *mark: marks.append(mark))
    assert "absent.onnx" in absent["error"]
    assert "image" in wrong["error"]
    assert absent["regions"] == wrong["regions"] == []
    assert right == {"regions": [0, 1], "error": None}


@pytest.mark.parametrize("view", [False, True])
def test_a_view_lies_where_its_first_input_does(view: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever file holds that input, and whatever else the node reads: here the shape comes first, and has room for two numbers."""
    data, shape = (
        helper.make_tensor_value_info(name, kind, [n]) for name, kind, n in (("x", TensorProto.FLOAT, 6), ("s", TensorProto.INT64, 2))
    )
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "s"], ["y"])], "g", [data, shape], [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    save_tensors(tmp_path / "s.npz", {"s": np.array([[2, 3]])})
    save_tensors(tmp_path / "x.npz", {"x": np.arange(6, dtype=np.float32)[None]})
    addresses = {}

    def bind(call: Any, name: str, value: Any, memory: Any) -> None:
        addresses[name] = memory.ctypes.data
        call(name, "cpu", 0, value.dtype.type, value.shape, memory.ctypes.data)

    monkeypatch.setattr("runtime_tests.emulation.guest._bind", bind)
    job = Job(tmp_path / "m.onnx", (tmp_path / "s.npz", tmp_path / "x.npz"), bound=True, as_is=True, view=view)
    assert run_jobs(as_jobs(job), lambda *_: None)[0]["error"] is None
    assert (addresses["x"] == addresses["y"]) is view and addresses["s"] != addresses["y"]


def test_the_optimised_graph_is_kept(model: Path, inputs: Path, tmp_path: Path) -> None:
    path = tmp_path / "optimised.onnx"
    run_jobs(as_jobs(Job(model, (inputs,), optimised=path)), lambda *_: None)
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node}


def test_the_mark_is_a_call_that_no_kernel_has() -> None:
    assert marker()(0, BEGIN) == -1
    call = ctypes.CDLL(None, use_errno=True).syscall
    assert call(MARK, 0, 0) == -1
    assert ctypes.get_errno() == errno.ENOSYS


def test_the_report_says_what_ran(model: Path, inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "jobs.json").write_text(json.dumps(as_jobs(Job(model, (inputs,)))))
    assert main([str(tmp_path / "jobs.json"), str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["jobs"] == [{"regions": [0, 1], "error": None}]
    assert report["onnxruntime"] == onnxruntime.__version__
    assert report["machine"] == os.uname().machine


@pytest.mark.skipif(platform.machine() == "aarch64", reason="the core may have any of them")
def test_other_machines_report_no_arm64_capabilities() -> None:
    assert capabilities() == []
