"""The oldest ONNX Runtime that is supported, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

OLDEST = Path(sys.prefix) / "oldest-onnxruntime"

_SCRIPT = """
import json, sys
import numpy as np, onnx, onnxruntime
from collections import Counter
folder, settings = sys.argv[1], json.loads(sys.argv[2])
options = onnxruntime.SessionOptions()
options.log_severity_level, options.intra_op_num_threads = 4, 1
options.optimized_model_filepath = folder + "/oldest.onnx"
for key, value in settings.items():
    options.add_session_config_entry(key, value)
session = onnxruntime.InferenceSession(folder + "/model.onnx", options, providers=["CPUExecutionProvider"])
values = session.run(None, dict(np.load(folder + "/feed.npz")))
np.savez(folder + "/result.npz", **{o.name: v for o, v in zip(session.get_outputs(), values)})
kernels = Counter(n.op_type for n in onnx.load(folder + "/oldest.onnx").graph.node)
print(json.dumps({"version": onnxruntime.__version__, "kernels": kernels}))
"""

_READ = """
import sys
import numpy as np, onnxruntime
model, folder = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.log_severity_level, options.intra_op_num_threads = 4, 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
values = session.run(None, dict(np.load(folder + "/feed.npz")))
np.savez(folder + "/result.npz", **{o.name: v for o, v in zip(session.get_outputs(), values)})
"""


def run_oldest(proto: onnx.ModelProto, feed: dict[str, npt.NDArray[Any]], settings: dict[str, str], folder: Path) -> dict[str, Any]:
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    told: dict[str, Any] = json.loads(_run(_SCRIPT, feed, folder, str(folder), json.dumps(settings)))
    return {**told, "outputs": dict(np.load(folder / "result.npz"))}


def read_oldest(model: Path, feed: dict[str, npt.NDArray[Any]], folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Outputs of a file in any format that the runtime reads."""
    _run(_READ, feed, folder, str(model), str(folder))
    return dict(np.load(folder / "result.npz"))


def _run(script: str, feed: dict[str, npt.NDArray[Any]], folder: Path, *words: str) -> str:
    """What the script printed."""
    np.savez(folder / "feed.npz", **feed)  # type: ignore[arg-type]
    environment = {**os.environ, "PYTHONPATH": str(OLDEST)}
    done = subprocess.run([sys.executable, "-c", script, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
