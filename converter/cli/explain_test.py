"""``bridgequant explain``, with and without calibration samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converter.testing.command import check_refusal
from converter.testing.models import Run


def test_without_samples_there_are_no_ranges(run: Run, source: Path) -> None:
    result = run("explain", source, "-q")
    assert result.code == 0 and result.out.startswith("1 bridge block, 14 layers\n") and " reads " not in result.out
    assert result.out == run(source, "--explain", "-q").out


def test_words_of_the_table_of_blocks_are_explained(run: Run, source: Path) -> None:
    shown = run("explain", source, "-q").out
    assert "in a bridge block feature maps become tokens" in shown and "judged at: the tensors that leave it" in shown


def test_each_layer_has_the_bytes_of_its_float_weights(run: Run, source: Path) -> None:
    """The stem has 8 x 3 x 3 x 3 weights and 8 biases; a product of two computed tensors has none."""
    (stem,) = [line for line in run("explain", source, "-q").out.splitlines() if line.rstrip().endswith("/stem/conv/Conv")]
    assert "0.9 kB" in stem and 4 * (8 * 27 + 8) == 896


def test_ranges_are_those_of_the_samples(run: Run, source: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (8, 3, 32, 32)).astype(np.float32)
    images[:, 0, 0, 0] = 50.0
    np.save(tmp_path / "images.npy", images)
    result = run("explain", source, "--calib", tmp_path / "images.npy", "-q")
    assert result.code == 0, result.err
    assert "ranges on arrays" in result.out and "images.npy" in result.out
    (stem,) = [line for line in result.out.splitlines() if line.rstrip().endswith("/stem/conv/Conv")]
    assert "-1..50" in stem and "50." in stem and "x" in stem, "a number beyond the others shows"
    assert stem.count("..") == 2, "what it reads, and what it writes"


def test_samples_that_cannot_be_used_are_refused(run: Run, source: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((4, 3, 16, 16), np.float32))
    check_refusal(run("explain", source, "--calib", tmp_path / "images.npy"), 4, "images.npy")
