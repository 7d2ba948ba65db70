"""The mobile format: what it keeps, and what is found out about a file that does not."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from converter.errors import VerificationError
from converter.options import Options
from converter.pipeline import convert
from converter.report import Report, report_json
from converter.runtime.session import open_session, run_session
from converter.targets import TARGETS
from converter.testing.models import SaveHybrid
from converter.testing.sketch import Sketch
from converter.verify import ort_format as module
from converter.verify.integer_coverage import INTEGER_PRODUCTS
from converter.verify.ort_format import ort_format

pytestmark = pytest.mark.usefixtures("few_turns")

FEED = {"image": np.random.default_rng(3).random((1, 3, 32, 32), dtype=np.float32)}


def converted(save_hybrid: SaveHybrid, folder: Path, target: str) -> Report:
    options = Options(samples=3, threads=1, method="minmax", placement="all", target=target)
    return convert(save_hybrid(), folder / "int8.onnx", options, ort_out=folder / "int8.ort")


def kernels_of(path: Path) -> Counter[str]:
    session = open_session(path, threads=1, profile_prefix=path.with_name("profile"))
    run_session(session, FEED)
    events = json.loads(Path(session.end_profiling()).read_text())
    return Counter(event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time"))


@pytest.mark.parametrize("target", ["arm64", "x86", "web"])
def test_it_has_the_integer_kernels_answers_and_metadata_of_the_model(save_hybrid: SaveHybrid, tmp_path: Path, target: str) -> None:
    report = converted(save_hybrid, tmp_path, target)
    assert report.verdict is not None
    path = tmp_path / "int8.ort"
    assert path.read_bytes()[4:8] == b"ORTM", "the format's mark"
    wanted = {name: count for name, count in report.verdict.integer_coverage.kernels.items() if name in INTEGER_PRODUCTS}
    ran = kernels_of(path)
    assert {name: ran[name] for name in wanted} == wanted and wanted["QLinearConv"] >= 4
    settings = {"session.qdqisint8allowed": str(int(target == "arm64"))}
    model, mobile = open_session(tmp_path / "int8.onnx", threads=1, settings=settings), open_session(path, threads=1)
    np.testing.assert_allclose(run_session(mobile, FEED)["logits"], run_session(model, FEED)["logits"], rtol=1e-4, atol=1e-5)
    assert mobile.get_modelmeta().custom_metadata_map == model.get_modelmeta().custom_metadata_map
    assert json.loads(report_json(report))["ort"] == {
        "file": "int8.ort", "bytes": path.stat().st_size, "onnxruntime": onnxruntime.__version__,
    }  # fmt: skip


def test_a_file_that_lost_its_integer_kernels_is_refused(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    """Written for machines without int8 activations, a model that has them is float for good."""
    report = converted(save_hybrid, tmp_path, "arm64")
    assert report.verdict is not None and report.model is not None
    with pytest.raises(VerificationError, match="has lost integer kernels: 4 of 7 QGemm are left"):
        ort_format(report.model, replace(TARGETS["arm64"], signed_activations=False), FEED, report.verdict.integer_coverage.kernels)


def test_a_file_for_this_machine_alone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("image", 1, 3, 32, 32), 3, outputs=16)
    model = ir.to_proto(sketch.model(sketch.conv(x, 16)))
    (tmp_path / "float.onnx").write_bytes(model.SerializeToString())
    assert ort_format(model, TARGETS["x86"], FEED, {})[4:8] == b"ORTM"
    if "ReorderOutput" not in kernels_of(tmp_path / "float.onnx"):
        pytest.skip("this machine has no blocked layouts")
    monkeypatch.setattr(module, "_LAYOUTS", ())
    with pytest.raises(VerificationError, match="layouts of this machine: ReorderOutput"):
        ort_format(model, TARGETS["x86"], FEED, {})


def test_other_answers_are_noticed() -> None:
    output = np.array([1.0, np.nan], np.float32)
    module._check_answers({"y": output, "z": [output]}, {"y": output.copy(), "z": [output]})
    with pytest.raises(VerificationError, match="gives other answers than the model"):
        module._check_answers({"y": output}, {"y": np.nextafter(output, np.float32(2))})


def test_a_failure_leaves_both_files_as_they_were(save_hybrid: SaveHybrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: f"old {name}".encode() for name in ("int8.onnx", "int8.ort")}
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(module, "_FORMAT", {"session.save_model_format": "no such format"})
    with pytest.raises(VerificationError, match="the ORT format does not run") as caught:
        converted(save_hybrid, tmp_path, "arm64")
    assert caught.value.exit_code == 5 and len(str(caught.value).splitlines()) == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name in before} == before
