"""The whole command, and what its JSON has to say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from converter.runtime.session import open_session
from runtime_tests.model_pair import open_model_pair
from tools.device_bench.__main__ import main
from tools.device_bench.testing.converted import Converted

QUICK = ["--seconds", "0", "--warm", "0", "--samples", "2"]


def benched(files: Converted, *flags: str, plan: bool = True) -> dict[str, Any]:
    """The JSON of a run that is to succeed."""
    out = files.floats.with_name("out.json")
    words = [str(files.floats), str(files.int8), *QUICK, "--json", str(out)]
    assert main([*words, *(["--plan-in", str(files.plan)] if plan else []), *flags]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def check(found: dict[str, Any], files: Converted, machine: str) -> None:
    """Times of both models, and the answers of this machine with the kernels of ARM64."""
    floats, int8 = found["models"]
    assert (found["device"]["machine"], floats["file"], int8["file"]) == (machine, "float.onnx", "int8.onnx")
    assert [len(model["times_ms"]) for model in (floats, int8)] == [5, 5]
    assert floats["ratio"]["ratio"] == 1.0 and min(int8["times_ms"]) <= int8["p50_ms"] <= int8["p90_ms"] <= max(int8["times_ms"])
    assert int8["memory_mb"] > 0 and found["process_mb"] > 0
    assert int8["answers"]["here"]["equal"] == int8["answers"]["here"]["predictions"] == 2
    plan = int8["answers"]["plan"]
    assert plan["parity_db"] > plan["float_db"] + 6.0 and plan["reference"] == "a simulation of the plan"
    pair = open_model_pair(files.floats, files.int8, count=2, seed=1)
    (name, told), *_ = int8["outputs"].items()
    wanted = [open_session(files.int8, settings=pair.settings).run([name], dict(feed))[0] for feed in pair.feeds]
    np.testing.assert_allclose(np.array(told["values"]), np.stack(wanted), atol=0.02 * np.abs(wanted).max())
