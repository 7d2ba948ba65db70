"""What a program sees of the package: names, models and samples in memory, the stages one by one."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import converter
from converter import BitWidths, Options, Plan, convert
from converter.errors import CalibrationError, ModelError, UsageError
from converter.load.model import load
from converter.pipeline import adopt_plan, calibrate, emit_model, make_plan
from converter.plan.serialization import plan_to_json
from converter.testing.models import SaveHybrid, WriteImages, hybrid_model

ROOT = Path(__file__).parents[1]
IMAGES = np.random.default_rng(0).random((4, 3, 32, 32), np.float32)


def quick(**changes: Any) -> Options:
    return Options(**{"samples": 4, "threads": 1, "method": "minmax", "placement": "all", **changes})


@pytest.mark.parametrize("name", converter.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(converter, name) is not None


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        converter.nothing  # noqa: B018


def test_importing_the_package_opens_no_file_but_modules() -> None:
    """Whatever is opened beside Python's own files would be missed where the package is packed, and costs time."""
    program = """
import sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
from converter import Options, convert, errors
import converter.cli.main
print(*[path for path in opened if path.startswith(sys.argv[1]) and "__pycache__" not in path and not path.endswith(".py")])
"""
    found = subprocess.run([sys.executable, "-c", program, str(ROOT / "converter")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "\n"), found


def test_paths_may_be_texts(source: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    result, plan, told = (str(tmp_path / name) for name in ("out.onnx", "plan.json", "report.json"))
    report = convert(str(source), result, quick(calib=str(tmp_path / "images.npy")), plan_out=plan, json_out=told)
    assert report.output == "out.onnx"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npy", "out.onnx", "plan.json", "report.json"]


def test_a_model_in_memory_becomes_the_same_model(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out.onnx", quick(calib=IMAGES))
    given = onnx.load(source)
    before = given.SerializeToString(deterministic=True)
    report = convert(given, None, quick(calib=list(IMAGES)))
    assert report.model is not None and report.output == "" and report.source == "the given model"
    assert report.model.SerializeToString(deterministic=True) == (tmp_path / "out.onnx").read_bytes()
    assert given.SerializeToString(deterministic=True) == before


def test_an_exception_of_the_callers_own_samples_passes_as_it_is_and_no_file_is_left(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Iterator[np.ndarray[Any, Any]]:
        yield IMAGES[0]
        raise ZeroDivisionError("of the caller")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError, match="of the caller"):
        convert(source, tmp_path / "out.onnx", quick(calib=broken()), plan_out=tmp_path / "plan.json")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_has_no_model(source: Path) -> None:
    assert convert(source, options=quick(), dry_run=True).model is None


def test_the_default_options_are_those_of_the_record(source: Path) -> None:
    report = convert(source, options=quick(method="q-hyvit"), dry_run=True)
    assert report.method == Options().method and report.bits == str(Options().widths)


def test_errors_name_a_model_in_memory() -> None:
    with pytest.raises(ModelError) as caught:
        convert(onnx.ModelProto())
    assert caught.value.where == "the given model"


def test_a_model_in_memory_must_hold_its_weights(tmp_path: Path) -> None:
    onnx.save(hybrid_model(), tmp_path / "in.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ModelError, match="lies in another file") as caught:
        convert(onnx.load(tmp_path / "in.onnx", load_external_data=False))
    assert "onnx.load" in caught.value.hint


def test_a_model_in_memory_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = hybrid_model()
    monkeypatch.setattr(onnx.checker, "MAXIMUM_PROTOBUF", 100)
    with pytest.raises(ModelError, match="over 2 GB"):
        convert(model)


def test_required_data_may_be_given_and_must_say_something(source: Path) -> None:
    convert(source, options=quick(calib=IMAGES, require_data=True), dry_run=True)
    with pytest.raises(CalibrationError, match="are equal") as caught:
        convert(source, options=quick(calib=np.zeros_like(IMAGES), require_data=True), dry_run=True)
    assert caught.value.where == "--require-data with the given calibration data"


def test_open_sizes_are_those_of_given_samples(save_hybrid: SaveHybrid) -> None:
    report = convert(save_hybrid(dynamic_size=True), options=quick(calib=iter(IMAGES)), dry_run=True)
    assert not any("guessed" in note for note in report.notes)


def test_the_stages_give_what_a_conversion_gives_and_leave_what_they_are_given(source: Path) -> None:
    options = quick(calib=IMAGES, method="q-hyvit", bits="W6A6")
    calibrated = calibrate(load(source), options)
    first, second = (make_plan(calibrated) for _ in range(2))
    assert plan_to_json(first.plan) == plan_to_json(second.plan)
    whole = convert(source, options=options)
    assert whole.model is not None
    for planned in (first, adopt_plan(calibrated, first.plan)):
        assert emit_model(calibrated, planned).SerializeToString(deterministic=True) == whole.model.SerializeToString(deterministic=True)


def test_a_plan_of_other_widths_is_not_adopted(source: Path) -> None:
    calibrated = calibrate(load(source), quick(calib=IMAGES))
    with pytest.raises(UsageError, match="the plan is for W4A4, not for W8A8") as caught:
        adopt_plan(calibrated, Plan("mse", BitWidths(4, 4), "arm64", {}, {}))
    assert "the given plan" in caught.value.where


def test_the_script_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_images: WriteImages, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(hybrid_model(), tmp_path / "model.onnx")
    write_images(tmp_path / "images")
    np.save(tmp_path / "pictures.npy", np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), np.uint8))
    monkeypatch.chdir(tmp_path)
    scripts = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "from_python.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    for script in scripts:
        exec(compile(script, "docs/from_python.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert len(scripts) == 4 and len(printed) == 3 and "100 were asked for" in printed[1]
    assert (tmp_path / "model_int8.onnx").exists()
    assert {op.name: op.reason for op in names["verdict"].integer_coverage.float_ops}["/stem/conv/Conv"]
