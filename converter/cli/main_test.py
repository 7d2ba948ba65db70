"""The command in this process: exit codes, what is printed where, and what is written."""

from __future__ import annotations

import errno
import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from converter import pipeline
from converter.cli import main as command_line
from converter.cli.flags import parse_flags, read_options
from converter.cli.main import main
from converter.errors import ModelError, VerificationError
from converter.methods.search_parts import SearchParts
from converter.stages import calibrate as calibrate_stage
from converter.stages import emit as emit_stage
from converter.stages import verify as verify_stage
from converter.testing.command import QUICK, check_refusal, names, write
from converter.testing.models import Outcome, Run, SaveHybrid, WriteImages, hybrid_model

FLOAT = TensorProto.FLOAT
pytestmark = pytest.mark.usefixtures("few_turns")


# The plain case


def test_two_paths_are_enough(run: Run, source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out.onnx")
    assert result.code == 0, result.err
    assert names(tmp_path) == ["out.onnx"]
    assert "QuantizeLinear" in {n.op_type for n in onnx.load(tmp_path / "out.onnx").graph.node}
    assert "logits" in result.out and "dB SQNR" in result.out and "top-1 agreement" in result.out
    assert result.err.count("--calib") == 1, "one line on what was calibrated with, and how to do better"


def test_the_machine_is_told_where_nobody_has_named_one(run: Run, source: Path, tmp_path: Path) -> None:
    told = run(source, tmp_path / "out.onnx", *QUICK).err
    assert (
        "no --target: the file is for arm64, ARM64 with dot product" in told
        and "for a PC give --target x86, for a browser --target web" in told
    )
    assert "no --target" not in run(source, tmp_path / "out.onnx", *QUICK, "--target", "arm64").err


def test_the_time_of_each_stage_is_told(run: Run, source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out.onnx", *QUICK, "--json", tmp_path / "report.json")
    seconds = json.loads((tmp_path / "report.json").read_text())["seconds"]
    assert list(seconds)[:6] == ["load", "canonicalise", "observe", "plan", "emit", "verify"]
    assert all(value >= 0 for value in seconds.values()) and sum(seconds.values()) > 0
    (line,) = [line for line in result.out.splitlines() if line.startswith("time ")]
    assert float(line.split()[1]) == pytest.approx(sum(seconds.values()), abs=0.11)


def test_an_existing_output_is_replaced(run: Run, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_bytes(b"old")
    assert run(source, tmp_path / "out.onnx", *QUICK).code == 0
    onnx.checker.check_model(tmp_path / "out.onnx")


@pytest.mark.parametrize("kind", ["folder", "npz", "npy"])
def test_calibration_data(run: Run, source: Path, tmp_path: Path, write_images: WriteImages, kind: str) -> None:
    calib = tmp_path / f"data.{kind}"
    if kind == "folder":
        write_images(calib)
        (calib / "class0" / "broken.png").write_bytes(b"no picture")
    else:
        arrays = np.random.default_rng(0).standard_normal((6, 3, 32, 32)).astype(np.float32)
        np.save(calib, arrays) if kind == "npy" else np.savez(calib, image=arrays)
    result = run(source, tmp_path / "out.onnx", "--calib", calib, *QUICK)
    assert result.code == 0, result.err
    assert calib.name in result.out and "synthetic" not in result.out + result.err
    assert ("1 unreadable image" in result.err) == (kind == "folder")


def test_preprocessing_of_the_metadata_is_the_default(run: Run, source: Path, tmp_path: Path, write_images: WriteImages) -> None:
    images = write_images(tmp_path / "images")
    stated = write(tmp_path / "in.onnx", hybrid_model(metadata={"bridgequant.preprocess": "symmetric;resize=pad"}))
    assert "symmetric;resize=pad" in run(stated, tmp_path / "a.onnx", "--calib", images, *QUICK).out
    assert "imagenet" in run(stated, tmp_path / "a.onnx", "--calib", images, "--preprocess", "imagenet", *QUICK).out
    assert "preprocessing unit" in run(source, tmp_path / "a.onnx", "--calib", images, *QUICK).out


@pytest.mark.parametrize("target", ["arm64", "x86"])
@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_targets_and_methods(run: Run, source: Path, tmp_path: Path, target: str, method: str) -> None:
    result = run(source, tmp_path / "out.onnx", "--samples", "4", "--target", target, "--method", method)
    assert result.code == 0, result.err
    metadata = {p.key: p.value for p in onnx.load(tmp_path / "out.onnx").metadata_props}
    assert (metadata["bridgequant.target"], metadata["bridgequant.method"]) == (target, method)


@pytest.mark.parametrize("opset", [9, 13, 20, 23])
def test_opsets(run: Run, save_hybrid: SaveHybrid, tmp_path: Path, opset: int) -> None:
    result = run(save_hybrid(opset=opset), tmp_path / "out.onnx", *QUICK)
    assert result.code == 0, result.err
    written = onnx.load(tmp_path / "out.onnx")
    stamped = written.opset_import[0].version
    assert f"opset {opset} -> {stamped};" in " ".join(result.out.split()) and 17 <= stamped <= 20
    needs = f"onnxruntime>=1.21; opset {stamped}, IR version {written.ir_version}"
    assert needs in " ".join(result.out.split())


def test_an_opset_can_be_asked_for(run: Run, source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out.onnx", "--opset", "21", "--json", "-", *QUICK)
    assert result.code == 0, result.err
    report, written = json.loads(result.out), onnx.load(tmp_path / "out.onnx")
    assert (written.opset_import[0].version, written.ir_version) == (report["opset"][1], report["ir_version"]) == (21, 10)
    metadata = {p.key: p.value for p in written.metadata_props}
    assert metadata["bridgequant.requires"] == report["requires"] == "onnxruntime>=1.21"


@pytest.mark.parametrize(
    ("opset", "code", "words"), [("13", 3, ["opset 13", "needs 17 or newer"]), ("9", 2, ["opset 9", "--opset", "13 to 22"])]
)
def test_an_opset_that_cannot_be(run: Run, source: Path, tmp_path: Path, opset: str, code: int, words: list[str]) -> None:
    (tmp_path / "out.onnx").write_bytes(b"as it was")
    result = run(source, tmp_path / "out.onnx", "--opset", opset, *QUICK)
    assert (result.code, result.out) == (code, "")
    assert all(word in result.err for word in words)
    assert (tmp_path / "out.onnx").read_bytes() == b"as it was"


# What is printed


def test_quiet_prints_nothing(run: Run, source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out.onnx", "-q", *QUICK) == Outcome(0, "", "")


def test_verbose_lists_all_float_operators(run: Run, source: Path, tmp_path: Path) -> None:
    plain = run(source, tmp_path / "out.onnx", *QUICK)
    verbose = run(source, tmp_path / "out.onnx", "-v", *QUICK)
    assert "/attn/norm/LayerNormalization" not in plain.out
    assert all(name in verbose.out for name in ("/attn/norm/LayerNormalization", "/mlp/norm/LayerNormalization", "/attn/MatMul_1_divided"))


def test_output_is_narrow_plain_text(run: Run, source: Path, tmp_path: Path) -> None:
    out = run(source, tmp_path / "out.onnx", *QUICK).out
    assert out.isascii() and "\x1b" not in out
    assert all(len(line) <= 100 and line == line.rstrip() for line in out.splitlines())


def test_json_on_stdout_is_alone_there(run: Run, source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out.onnx", "--json", "-", "--latency", *QUICK)
    report = json.loads(result.out)
    assert report["outputs"][0]["name"] == "logits" and 0 < report["integer_coverage"] <= 1
    assert report["latency_ratio"]["turns"] >= 5 and report["total_macs"] > 100_000
    assert any("--calib" in note for note in report["notes"])
    assert names(tmp_path) == ["out.onnx"]


def test_json_and_plan_files(run: Run, source: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("old")
    result = run(source, tmp_path / "out.onnx", "--json", tmp_path / "report.json", "--plan-out", tmp_path / "plan.json", *QUICK)
    assert result.code == 0 and "dB SQNR" in result.out
    assert json.loads((tmp_path / "report.json").read_text())["method"] == "minmax"
    assert json.loads((tmp_path / "plan.json").read_text())["format"] == "bridgequant-plan"
    assert names(tmp_path) == ["out.onnx", "plan.json", "report.json"]


def test_the_mobile_format_beside_the_model(run: Run, source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out.onnx", "--ort", *QUICK)
    assert result.code == 0 and "mobile" in result.out and "out.ort, " in result.out
    assert names(tmp_path) == ["out.onnx", "out.ort"]
    check_refusal(run(source, tmp_path / "out.ort", "--ort", *QUICK), 2, "not in .ort", "--ort writes")


def test_dry_run_writes_the_plan_only(run: Run, source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out.onnx", "--dry-run", "--plan-out", tmp_path / "plan.json", "--json", "-", *QUICK)
    assert result.code == 0 and json.loads(result.out)["output"] == ""
    assert names(tmp_path) == ["plan.json"]
    assert "dry run" in run(source, tmp_path / "out.onnx", "--dry-run", *QUICK).out


def test_names_with_markup_are_printed_as_they_are(run: Run, source: Path, tmp_path: Path, write_images: WriteImages) -> None:
    calib = write_images(tmp_path / "[bold]x[")
    result = run(source, tmp_path / "a[red].onnx", "--calib", calib, *QUICK)
    assert result.code == 0, result.err
    assert "a[red].onnx" in result.out and "[bold]x[" in " ".join(result.out.split())


def test_the_guess_of_open_sizes_is_told(run: Run, save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    model = save_hybrid(dynamic_batch=True, dynamic_size=True)
    result = run(model, tmp_path / "out.onnx", "--samples", "1", "--method", "minmax")
    assert result.code == 0, result.err
    assert "[1, 3, 224, 224]" in result.err and "--input-shape" in result.err
    assert "guess" not in run(model, tmp_path / "out.onnx", "--input-shape", "image:1,3,32,32", *QUICK).err


# Verification and bounds


def test_failed_verification_writes_nothing(run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out.onnx").write_bytes(b"old")

    def fail(*_: Any, **__: Any) -> None:
        raise VerificationError("an output of the emitted model is not finite", where="output 'logits'", hint="try another --method")

    monkeypatch.setattr(verify_stage, "verify", fail)
    result = run(source, tmp_path / "out.onnx", "--plan-out", tmp_path / "plan.json", "--json", tmp_path / "r.json", *QUICK)
    check_refusal(result, 5, "logits")
    assert names(tmp_path) == ["out.onnx"] and (tmp_path / "out.onnx").read_bytes() == b"old"


def test_a_missed_bound_writes_nothing(run: Run, source: Path, tmp_path: Path) -> None:
    check_refusal(run(source, tmp_path / "out.onnx", "--min-sqnr", "150", *QUICK), 6, "150", "logits")
    assert names(tmp_path) == []
    assert run(source, tmp_path / "out.onnx", "--min-sqnr", "5", *QUICK).code == 0


# Unexpected


def broken(*_: Any, **__: Any) -> None:
    raise ZeroDivisionError("the third\nwheel came off")


def test_unexpected_errors_are_one_line(run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emit_stage, "emit", broken)
    result = run(source, tmp_path / "out.onnx", "-q", *QUICK)
    check_refusal(result, 1, "ZeroDivisionError", "the third", "-v")
    assert "Traceback" not in result.err
    verbose = run(source, tmp_path / "out.onnx", "-v", *QUICK)
    assert verbose.code == 1 and "Traceback" in verbose.err and "in broken" in verbose.err
    assert names(tmp_path) == []


def test_a_python_without_the_packages_is_told_from_a_bug(run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'onnxsim'", name="onnxsim")

    monkeypatch.setattr(calibrate_stage, "canonicalise", missing)
    check_refusal(run(source, tmp_path / "out.onnx"), 2, "'onnxsim' is not installed for this Python", sys.executable, ".venv/bin/python")


def test_too_little_memory(run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(calibrate_stage, "load_samples", exhausted)
    check_refusal(run(source, tmp_path / "out.onnx"), 1, "memory", "--samples")


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_interruption(run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = ((pipeline, "load"), (calibrate_stage, "canonicalise"), (calibrate_stage, "collect_statistics"), (verify_stage, "verify"))
    for module, name in (*places, (pipeline, "write_files")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, interrupted)
            result = run(source, tmp_path / "out.onnx", *QUICK)
        assert result.code == 130 and result.out == ""
        assert result.err == f"interrupted; {tmp_path / 'out.onnx'} was not written\n"
        assert names(tmp_path) == []


@pytest.mark.parametrize("kind", [ModelError, RuntimeError])
def test_an_interruption_that_a_library_has_renamed_is_still_one(
    kind: type[Exception], run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def library(*_: Any, **__: Any) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise kind("a callback failed") from error

    monkeypatch.setattr(calibrate_stage, "canonicalise", library)
    result = run(source, tmp_path / "out.onnx", *QUICK)
    assert (result.code, result.err) == (130, f"interrupted; {tmp_path / 'out.onnx'} was not written\n")


def test_interruption_after_writing_says_so(run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "_print", interrupted)
    result = run(source, tmp_path / "out.onnx", *QUICK)
    assert result.code == 130 and "is written" in result.err
    onnx.checker.check_model(tmp_path / "out.onnx")


class Closed:
    encoding = "ascii"

    def __init__(self, error: OSError) -> None:
        self.error = error

    def isatty(self) -> bool:
        return False

    def write(self, _: str) -> int:
        raise self.error

    def flush(self) -> None: ...

    def fileno(self) -> int:
        raise OSError("not a file")


@pytest.mark.parametrize(("error", "code"), [(BrokenPipeError(errno.EPIPE, "Broken pipe"), 0), (OSError(errno.ENOSPC, "No space left"), 1)])
def test_stdout_that_takes_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, code: int) -> None:
    monkeypatch.setattr(sys, "stdout", Closed(error))
    assert main([str(source), str(tmp_path / "out.onnx"), *QUICK]) == code
    assert names(tmp_path) == ["out.onnx"]


def test_no_streams_at_all(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main([str(source), str(tmp_path / "out.onnx"), *QUICK]) == 0
    assert main([str(tmp_path), str(tmp_path / "out.onnx")]) == 3
    assert main([str(source), str(tmp_path / "out.onnx"), "--json", "-", *QUICK]) == 0


def test_stdout_in_another_encoding(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    class Ascii(Closed):
        def write(self, text: str) -> int:
            written.append(text.encode("ascii"))
            return len(text)

    monkeypatch.setattr(sys, "stdout", Ascii(OSError()))
    assert main([str(source), str(tmp_path / "größe.onnx"), *QUICK]) == 0
    assert b"gr\\xf6\\xdfe.onnx" in b"".join(written)


def test_help_and_version_return_zero(run: Run) -> None:
    assert run("--version").out.startswith("bridgequant ")
    assert run("--help").code == 0
    check_refusal(run(), 2, "IN.onnx, OUT.onnx")


def test_two_parts_of_the_search_have_a_switch() -> None:
    given = [
        read_options(parse_flags(["a.onnx", "b.onnx", *flags])).parts for flags in ([], ["--bridge-blocks"], ["--no-piecewise-linear"])
    ]
    assert given == [SearchParts(), SearchParts(bridge=True), SearchParts(piecewise_linear=False)]


def test_only_a_process_of_its_own_is_told_to_share_a_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    monkeypatch.setattr("converter.cli.main.share_heap", lambda: told.append(True))
    assert main(["missing.onnx", "out.onnx"]) != 0
    assert not told
    monkeypatch.setattr("sys.argv", ["convert.py", "missing.onnx", "out.onnx"])
    assert main() != 0
    assert told == [True]
