from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.runtime.session import open_session, run_session
from converter.testing.models import hybrid_model
from converter.testing.sketch import Sketch
from tools.benchmarks import stress as module
from tools.benchmarks.stress import main, stress


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "float.onnx"
    path.write_bytes(hybrid_model(metadata={"author": "the test suite", "bridgequant.preprocess": "unit"}).SerializeToString())
    return path


def outputs(path: Path) -> np.ndarray:
    feed = {"image": np.random.default_rng(3).random((1, 3, 32, 32), dtype=np.float32)}
    return run_session(open_session(path, threads=1), feed)["logits"]


def test_the_outputs_stay_and_the_ranges_spread(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(source), str(tmp_path / "out.onnx"), "--spread", "1000"]) == 0
    before = outputs(source)
    np.testing.assert_allclose(outputs(tmp_path / "out.onnx"), before, atol=1e-4 * float(np.abs(before).max()))
    result = stress(source, spread=1000.0)
    # two norms, query and key, value and head; half of the factors are more than 1000 ** (1/4) above or below the middle
    assert result.sites == 5
    assert result.after > 4 * result.before
    assert result.error < 1e-4
    printed = capsys.readouterr().out
    assert printed.startswith(
        f"5 sites rescaled; largest channel range over the median one, median of the sites: {result.before:.1f} before"
    )


def test_the_result_is_a_float_model_with_the_metadata_of_the_source(source: Path, tmp_path: Path) -> None:
    main([str(source), str(tmp_path / "out.onnx")])
    before, after = onnx.load(source), onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(after, full_check=True)
    assert [(p.key, p.value) for p in after.metadata_props] == [(p.key, p.value) for p in before.metadata_props]
    assert (after.graph.input, after.graph.output) == (before.graph.input, before.graph.output)
    assert not any(node.name.endswith("_scaled_Mul") for node in after.graph.node)


def test_the_seed_decides(source: Path, tmp_path: Path) -> None:
    files = {}
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        main([str(source), str(tmp_path / name), "--seed", seed])
        files[name] = (tmp_path / name).read_bytes()
    assert files["a"] == files["b"] != files["c"]


def test_without_spread_nothing_changes(source: Path) -> None:
    result = stress(source, spread=1.0)
    assert result.after == pytest.approx(result.before, rel=1e-5)


def test_the_spread_is_the_largest_channel_over_the_median_one(tmp_path: Path) -> None:
    """Two layers with channels of ranges 1, 1, 1 and 8 times the input's."""
    sketch = Sketch()
    x = sketch.add("Conv", sketch.input("x", 1, 1, 4, 4), sketch.constant(np.reshape([1.0, 1.0, 1.0, 8.0], (4, 1, 1, 1))))
    model = sketch.model(sketch.add("Conv", x, sketch.normal(2, 4, 1, 1)))
    path = tmp_path / "two.onnx"
    path.write_bytes(ir.to_proto(model).SerializeToString())
    assert stress(path).before == pytest.approx(8.0)


def test_a_model_without_sites_is_written_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sketch = Sketch()
    path = tmp_path / "one.onnx"
    path.write_bytes(ir.to_proto(sketch.model(sketch.add("Sigmoid", sketch.input("x", 1, 4)))).SerializeToString())
    assert main([str(path), str(tmp_path / "out.onnx")]) == 0
    assert capsys.readouterr().out.startswith("0 sites rescaled")


def test_outputs_that_would_change_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST_ERROR", 0.0)
    assert main([str(source), str(tmp_path / "out.onnx")]) > 0
    message = capsys.readouterr().err
    assert "nothing was written" in message and len(message.splitlines()) <= 3
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("arguments", [["--spread", "0.5"], ["--spread", "nan"], ["missing.onnx"]])
def test_bad_arguments_are_explained_in_three_lines(
    arguments: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tmp_path / arguments[0])] if arguments[0].endswith("onnx") else [str(source), *[]]
    assert main([*given, str(tmp_path / "out.onnx"), *(arguments if arguments[0].startswith("--") else [])]) > 0
    assert 0 < len(capsys.readouterr().err.splitlines()) <= 3
    assert not (tmp_path / "out.onnx").exists()
