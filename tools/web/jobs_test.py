from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from converter.errors import UsageError
from tools.web.jobs import Job, read_outputs


def test_a_job_is_a_folder_with_a_list_of_tasks(tmp_path: Path) -> None:
    (tmp_path / "given.onnx").write_bytes(b"a model")
    job = Job(tmp_path)
    model = job.model(tmp_path / "given.onnx")
    feed = job.feed({"x": np.arange(6, dtype=np.float32).reshape(2, 3)})
    job.latencies([model, model], feed, warm=1, turns=7)
    job.outputs(model, [feed])
    job.profiles([(model, feed)], runs=3)
    job.write()
    tasks = json.loads((tmp_path / "job.json").read_text())["tasks"]
    assert [task["kind"] for task in tasks] == ["latencies", "outputs", "profiles"]
    assert (tmp_path / model).read_bytes() == b"a model"
    assert feed["x"].items() >= {"type": "float32", "dims": [2, 3]}.items()
    assert np.array_equal(np.frombuffer((tmp_path / feed["x"]["file"]).read_bytes(), np.float32), np.arange(6))


def test_outputs_come_back_as_arrays(tmp_path: Path) -> None:
    (tmp_path / "scores").write_bytes(np.array([[0.5, 2.0]], np.float32).tobytes())
    (tmp_path / "labels").write_bytes(np.array([7], np.int64).tobytes())
    described = {"y": {"type": "float32", "dims": [1, 2], "file": "scores"}, "n": {"type": "int64", "dims": [], "file": "labels"}}
    (found,) = read_outputs([described], tmp_path)
    assert found["y"].tolist() == [[0.5, 2.0]] and found["n"].shape == () and found["n"] == 7


def test_types_that_scripts_do_not_pass_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="inputs of type float16"):
        Job(tmp_path).feed({"x": np.zeros(3, np.float16)})
