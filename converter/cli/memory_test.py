"""What a conversion takes does not grow with the number of samples that it is given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from converter.testing.models import hybrid_model

ROOT = Path(__file__).parents[2]
PIXELS = 128


def peak_with(samples: int, folder: Path) -> int:
    """Bytes at most in a process that converts a small hybrid of large images, as its report says."""
    np.save(folder / "data.npy", np.random.default_rng(0).random((samples + 4, 3, PIXELS, PIXELS), np.float32))
    onnx.save(hybrid_model(dynamic_size=True), folder / "model.onnx")
    words = [folder / "model.onnx", folder / "out.onnx", "--calib", folder / "data.npy", "--samples", samples, "--json", "-", "-q"]
    done = subprocess.run([sys.executable, "convert.py", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout)["peak_memory"])


@pytest.mark.slow
def test_four_times_as_many_samples_take_hardly_more(tmp_path: Path) -> None:
    """The samples themselves are held, twice: here 24 more of 0.2 MB."""
    few, many = (peak_with(count, tmp_path) for count in (8, 32))
    assert many - few < 24 * 2 * 3 * PIXELS**2 * 4 + 100e6
