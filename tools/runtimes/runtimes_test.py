"""The matrix of runtimes: which versions there are, what a file promises, and what breaks a promise."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx_ir as ir
import onnxruntime
import pytest
from packaging.version import Version

from converter.errors import ConverterError, UsageError
from converter.load.metadata import REQUIRES
from converter.testing.oldest_runtime import OLDEST
from converter.testing.sketch import classifier, emitted, plan_for
from runtime_tests.model_pair import open_model_pair
from runtime_tests.processes import Predictions
from tools.runtimes import wheels
from tools.runtimes.__main__ import broken_promises, main, markdown
from tools.runtimes.matrix import Cell, run_versions


def versions(*texts: str) -> list[Version]:
    return [Version(text) for text in texts]


def cell(version: str, *, equal: int = 100, largest: float = 0.01, promised: bool = True, refusal: str = "") -> Cell:
    found = None if refusal else Predictions("newest", version, 100, equal, largest)
    return Cell(Version(version), promised, refusal, found)


def test_of_each_minor_version_from_1_17_on_the_last_release_counts() -> None:
    known = versions("1.17.0", "1.16.3", "1.32.0", "1.17.3", "1.33.0rc1", "1.9.0", "1.18.1", "1.18.0")
    assert wheels.last_of_each_minor(known) == versions("1.17.3", "1.18.1", "1.32.0")


def test_versions_from_before_numpy_2_get_an_older_numpy() -> None:
    assert wheels.requirements(Version("1.18.1")) == ["onnxruntime==1.18.1", "numpy<2"]
    assert wheels.requirements(Version("1.19.2")) == ["onnxruntime==1.19.2"]


def test_only_folders_of_complete_versions_are_installed(tmp_path: Path) -> None:
    for name in ("1.20.1/onnxruntime", "1.9.0/onnxruntime", "1.21.1", "notes/onnxruntime"):
        (tmp_path / name).mkdir(parents=True)
    assert list(wheels.installed(tmp_path)) == versions("1.9.0", "1.20.1")
    assert wheels.installed(tmp_path / "absent") == {}


def test_an_installation_that_fails_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import pathlib, sys; pathlib.Path(sys.argv[-2], 'onnxruntime').mkdir(parents=True); sys.exit('no network')"
    monkeypatch.setattr(wheels, "_PIP", (sys.executable, "-c", program))
    with pytest.raises(ConverterError, match="failed: no network"):
        wheels.install(tmp_path, versions("1.20.1"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_installed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.20.1" / "onnxruntime").mkdir(parents=True)
    monkeypatch.setattr(wheels, "_PIP", ("/no/such/pip",))
    assert list(wheels.install(tmp_path, versions("1.20.1"))) == versions("1.20.1")


def test_the_table_puts_what_is_not_promised_in_brackets() -> None:
    columns = {
        "arm64": [cell("1.17.3", equal=99), cell("1.32.0", equal=100, largest=0.0)],
        "x86": [cell("1.17.3", refusal="Unsupported model | IR version", promised=False), cell("1.32.0", largest=0.0)],
    }
    assert markdown(columns).splitlines() == [
        "| ONNX Runtime | arm64 | x86 |",
        "| ---: | --- | --- |",
        "| 1.17.3 | 99 of 100 the same, 1.0% off | (refused: Unsupported model   IR version) |",
        "| 1.32.0 | equal | equal |",
    ]
    assert broken_promises(columns) == []


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (cell("1.18.1", equal=22), "WRONG: 22 of 100 the same, 1.0% off"),
        (cell("1.18.1", refusal="no kernel"), "refused: no kernel"),
    ],
)
def test_a_promise_that_is_broken_is_named(broken: Cell, text: str) -> None:
    assert broken_promises({"x86": [broken, cell("1.32.0", largest=0.0)]}) == [f"x86 in 1.18.1: {text}"]


def test_without_versions_nothing_is_downloaded_but_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--wheels", str(tmp_path)]) == UsageError.exit_code
    assert main(["--wheels", str(tmp_path), "--versions", "1.17.3"]) == UsageError.exit_code
    told = capsys.readouterr().err
    assert "there is no ONNX Runtime 1.17.3" in told and "--install" in told and list(tmp_path.iterdir()) == []


def test_a_version_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--wheels", str(tmp_path), "--versions", "newest"]) == UsageError.exit_code
    assert "give versions such as 1.17.3" in capsys.readouterr().err


@pytest.mark.skipif(not OLDEST.is_dir(), reason=f"there is no older ONNX Runtime in {OLDEST}; the Makefile installs one")
def test_a_file_in_an_older_and_in_the_installed_runtime(tmp_path: Path) -> None:
    floats, fits, newer = (tmp_path / name for name in ("float.onnx", "fits.onnx", "newer.onnx"))
    floats.write_bytes(ir.to_proto(classifier()).SerializeToString())
    model = emitted(plan_for(classifier(), "arm64"), {REQUIRES: "onnxruntime>=1.19"})
    fits.write_bytes(model.SerializeToString())
    model.ir_version = 11  # which 1.19 does not read
    newer.write_bytes(model.SerializeToString())
    folders = {Version("1.19.2"): OLDEST, Version(onnxruntime.__version__): Path(onnxruntime.__file__).parents[1]}
    assert [c.text for c in run_versions(open_model_pair(floats, fits, count=2), folders)] == ["equal", "equal"]
    old, new = run_versions(open_model_pair(floats, newer, count=2), folders)
    assert old.promised and not old.agrees and "IR version" in old.refusal and new.text == "equal"
