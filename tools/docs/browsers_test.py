"""The script for a page runs, in Node for want of a browser: only how it loads the runtime and fetches the file is another there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from converter.errors import UsageError
from converter.options import Options
from converter.pipeline import convert
from converter.testing.models import hybrid_model
from tools.docs.pages import ROOT, fences
from tools.web.package import find_node, find_package

IN_NODE = """import fs from 'node:fs';
import {{ createRequire }} from 'node:module';
const ort = createRequire('{folder}/node_modules/')('onnxruntime-web/wasm');
"""


def script() -> str:
    (found,) = (fence.text for fence in fences((ROOT / "docs" / "browsers.md").read_text()) if fence.language == "js")
    return found


def test_the_runtime_is_loaded_in_two_lines() -> None:
    assert re.match(r"import \* as ort from '.*';\nort\.env\.wasm\.wasmPaths = '.*';\n\n", script())


@pytest.mark.slow
def test_the_script_prints_the_outputs(tmp_path: Path) -> None:
    try:
        node, package = find_node(), find_package()
    except UsageError as error:
        pytest.skip(f"{error.what}: {error.hint}")
    model = hybrid_model()
    convert(model, tmp_path / "model_web.onnx", Options(target="web", samples=4, method="minmax"))
    body = script().split("\n\n", 1)[1].replace("'model_web.onnx'", "fs.readFileSync('model_web.onnx')")
    (tmp_path / "page.mjs").write_text(IN_NODE.format(folder=package.folder) + body)
    done = subprocess.run([node, "page.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    numbers = [float(text) for text in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", done.stdout)]
    assert len(numbers) == 10 and np.isfinite(numbers).all()
