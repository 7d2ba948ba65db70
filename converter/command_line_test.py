"""The command in this process: exit codes, what is printed where, and what is written."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converter import command_line, pipeline
from converter.command_line import main
from converter.conftest import SaveHybrid, Values, WriteImages, hybrid_model, make_model
from converter.errors import VerificationError
from converter.latency import latency_ratio
from converter.runtime import open_session, run_session

FLOAT = TensorProto.FLOAT
QUICK = ["--samples", "4", "--method", "minmax", "--threads", "1"]


@pytest.fixture(autouse=True)
def few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "latency_ratio", functools.partial(latency_ratio, seconds=0.0))


@dataclasses.dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> Outcome:
        code = main([str(w) for w in words])
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call


@pytest.fixture
def source(save_hybrid: SaveHybrid) -> Path:
    return save_hybrid()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def check_refusal(outcome: Outcome, code: int, *words: object) -> None:
    """What, where and what to do in at most three lines, and nothing on stdout."""
    assert outcome.code == code, outcome.err
    lines = outcome.err.strip().splitlines()
    assert len(lines) <= 3 and lines[0].startswith("error: "), outcome.err
    assert any(line.startswith("  do: ") for line in lines), outcome.err
    assert outcome.out == ""
    assert all(str(word) in outcome.err for word in words), outcome.err


# The plain case


def test_two_paths_are_enough(run: Run, source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out.onnx")
    assert result.code == 0, result.err
    assert names(tmp_path) == ["out.onnx"]
    assert "QuantizeLinear" in {n.op_type for n in onnx.load(tmp_path / "out.onnx").graph.node}
    assert "logits" in result.out and "dB SQNR" in result.out and "top-1 agreement" in result.out
    assert result.err.count("--calib") == 1, "one line on what was calibrated with, and how to do better"


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
    assert f"opset {opset} -> " in result.out


# What is printed


def test_quiet_prints_nothing(run: Run, source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out.onnx", "-q", *QUICK) == Outcome(0, "", "")


def test_verbose_lists_all_float_operators(run: Run, source: Path, tmp_path: Path) -> None:
    plain = run(source, tmp_path / "out.onnx", *QUICK)
    verbose = run(source, tmp_path / "out.onnx", "-v", *QUICK)
    assert "/attn/norm/LayerNormalization" not in plain.out
    assert all(name in verbose.out for name in ("/attn/norm/LayerNormalization", "/mlp/norm/LayerNormalization", "/attn/Softmax"))


def test_output_is_narrow_plain_text(run: Run, source: Path, tmp_path: Path) -> None:
    out = run(source, tmp_path / "out.onnx", *QUICK).out
    assert out.isascii() and "\x1b" not in out
    assert all(len(line) <= 100 and line == line.rstrip() for line in out.splitlines())


def test_json_on_stdout_is_alone_there(run: Run, source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out.onnx", "--json", "-", *QUICK)
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


# Refusals: flags and paths


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--bits", "W3A4"], "4 to 8 bits each"),
        (["--bits", "W9A9"], "not a bit width"),
        (["--method", "magic"], "minmax"),
        (["--target", "gpu"], "arm64, arm64-v8.0, arm64-i8mm, x86, x86-vnni"),
        (["--placement", "fast"], "balanced:PRICE"),
        (["--samples", "0"], "--samples"),
        (["--seed", "-3"], "--seed"),
        (["--threads", "-1"], "--threads"),
        (["--min-sqnr", "nan"], "--min-sqnr"),
        (["--preprocess", "imagnet"], "imagenet"),
        (["--input-shape", "image"], "NAME:1,3,48,320"),
        (["--input-shape", "image:1,3,64,64"], "contradicts"),
        (["--input-shape", "picture:1,3,32,32"], "'image'"),
        (["--exclude", "/stem/conv/Conf"], "'/stem/conv/Conv'"),
        (["--unknown"], "no flag '--unknown'"),
    ],
)
def test_usage(run: Run, source: Path, tmp_path: Path, words: list[str], text: str) -> None:
    (tmp_path / "out.onnx").write_bytes(b"old")
    check_refusal(run(source, tmp_path / "out.onnx", *words), 2, text)
    assert (tmp_path / "out.onnx").read_bytes() == b"old" and names(tmp_path) == ["out.onnx"]


def test_paths_that_cannot_be(run: Run, source: Path, tmp_path: Path) -> None:
    check_refusal(run(tmp_path / "absent.onnx", tmp_path / "out.onnx"), 3, "does not exist", "absent.onnx")
    check_refusal(run(tmp_path, tmp_path / "out.onnx"), 3, "is a folder")
    check_refusal(run(source, tmp_path), 2, "is a folder")
    check_refusal(run(source, tmp_path / "missing" / "out.onnx"), 2, "does not exist", tmp_path / "missing")
    check_refusal(run(source, tmp_path / "out.onnx", "--calib", tmp_path / "absent"), 4, "absent")
    assert names(tmp_path) == []


@pytest.mark.parametrize("flag", ["--json", "--plan-out"])
def test_reports_into_a_missing_folder_fail_before_anything_is_written(run: Run, source: Path, tmp_path: Path, flag: str) -> None:
    check_refusal(run(source, tmp_path / "out.onnx", flag, tmp_path / "missing" / "x.json"), 2, flag, "does not exist")
    check_refusal(run(source, tmp_path / "out.onnx", flag, tmp_path), 2, flag, "is a folder")
    check_refusal(run(source, tmp_path / "out.onnx", flag, tmp_path / "out.onnx"), 2, "same file")
    check_refusal(run(source, tmp_path / "out.onnx", flag, source), 2, "same file")
    assert names(tmp_path) == []


def test_read_only_output_folder(run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))  # permission bits do not bind root
    check_refusal(run(source, tmp_path / "out.onnx"), 2, "not writable", tmp_path)


@pytest.mark.parametrize("link", ["same", "symlink", "hardlink"])
def test_input_and_output_are_one_file(run: Run, source: Path, tmp_path: Path, link: str) -> None:
    model = tmp_path / "in.onnx"
    model.write_bytes(source.read_bytes())
    other = model if link == "same" else tmp_path / "out.onnx"
    if link == "symlink":
        other.symlink_to(model)
    elif link == "hardlink":
        other.hardlink_to(model)
    check_refusal(run(model, other), 2, "same file")
    assert model.read_bytes() == source.read_bytes()


def test_external_data_are_not_overwritten(run: Run, tmp_path: Path) -> None:
    onnx.save(hybrid_model(), tmp_path / "in.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = (tmp_path / "weights.bin").read_bytes()
    check_refusal(run(tmp_path / "in.onnx", tmp_path / "weights.bin"), 2, "external data", "same file")
    assert (tmp_path / "weights.bin").read_bytes() == before
    assert run(tmp_path / "in.onnx", tmp_path / "out.onnx", *QUICK).code == 0


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_disk_full(run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    (tmp_path / "out.onnx").write_bytes(b"old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    check_refusal(run(source, tmp_path / "out.onnx", "--json", tmp_path / "report.json", *QUICK), 2, "No space left on device", tmp_path)
    assert names(tmp_path) == ["out.onnx"] and (tmp_path / "out.onnx").read_bytes() == b"old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_the_report_is_written_before_the_model(run: Run, source: Path, tmp_path: Path) -> None:
    """So that an error means that no model was written; a device is never replaced."""
    check_refusal(run(source, tmp_path / "out.onnx", "--json", "/dev/full", *QUICK), 2, "No space left on device", "/dev/full")
    assert names(tmp_path) == [] and not Path("/dev/full").is_file()


# Refusals: models; load_test.py has them all


def unary(op_type: str, kind: int = FLOAT, domain: str = "", opset: int = 17) -> onnx.ModelProto:
    node = helper.make_node(op_type, ["x"], ["y"], name="the node", domain=domain)
    return make_model([node], [("x", kind, [1, 4])], [("y", kind, [1, 4])], opset=opset)


def with_nan() -> onnx.ModelProto:
    model = hybrid_model()
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight.flat[3] = np.nan
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, model.graph.initializer[0].name))
    return model


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"no model", ["ONNX"]),
        (unary("Norm", domain="my.ops"), ["my.ops", "the node"]),
        (unary("Relu", opset=99), ["opset 99"]),
        (unary("Relu", opset=7), ["opset 7"]),
        (unary("QuantizeLinear"), ["already quantized"]),
        (unary("Relu", kind=TensorProto.FLOAT16), ["float16"]),
        (unary("Relu", kind=TensorProto.DOUBLE), ["double"]),
        (with_nan(), ["NaN", "/stem.conv.weight"]),
    ],
    ids=["empty", "text", "domain", "new", "old", "quantized", "half", "double", "nan"],
)
def test_models_that_are_refused(run: Run, tmp_path: Path, content: bytes | onnx.ModelProto, words: list[str]) -> None:
    (tmp_path / "in.onnx").write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    (tmp_path / "out.onnx").write_bytes(b"old")
    check_refusal(run(tmp_path / "in.onnx", tmp_path / "out.onnx"), 3, tmp_path / "in.onnx", *words)
    assert (tmp_path / "out.onnx").read_bytes() == b"old" and names(tmp_path) == ["in.onnx", "out.onnx"]


def test_truncated_model(run: Run, source: Path, tmp_path: Path) -> None:
    content = source.read_bytes()
    for length in range(1, len(content) - 40, len(content) // 12):
        (tmp_path / "in.onnx").write_bytes(content[:length])
        check_refusal(run(tmp_path / "in.onnx", tmp_path / "out.onnx"), 3, tmp_path / "in.onnx")


def test_a_model_that_the_runtime_cannot_run(run: Run, tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "s"], ["y"], name="the reshape")
    shape = {"s": np.asarray([3, 3], np.int64)}
    model = make_model([node], [("x", FLOAT, [1, 4])], [("y", FLOAT, [None, None])], initializers=shape)
    check_refusal(run(write(tmp_path / "in.onnx", model), tmp_path / "out.onnx"), 3, "the reshape")


def test_a_converted_model_is_refused(run: Run, source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out.onnx", *QUICK).code == 0
    check_refusal(run(tmp_path / "out.onnx", tmp_path / "again.onnx"), 3, "already quantized")


def test_nothing_to_quantize(run: Run, tmp_path: Path) -> None:
    for name, model in {
        "relu": unary("Relu"),
        "identity": unary("Identity"),
        "integers": unary("Neg", kind=TensorProto.INT64),
    }.items():
        source = write(tmp_path / f"{name}.onnx", model)
        result = run(source, tmp_path / "out.onnx", "--json", "-", *QUICK)
        assert result.code == 0, (name, result.err)
        assert json.loads(result.out)["integer_coverage"] == 0.0
        feed = {"x": np.arange(4).reshape(1, 4).astype(np.int64 if name == "integers" else np.float32)}
        got, wanted = (run_session(open_session(path), feed)["y"] for path in (tmp_path / "out.onnx", source))
        assert np.array_equal(got, wanted)
        check_refusal(run(tmp_path / "out.onnx", tmp_path / "again.onnx"), 3, "already converted")


def test_integer_and_several_inputs(run: Run, tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["table", "tokens"], ["e"]), helper.make_node("Add", ["e", "bias"], ["y"])]
    inputs: Values = [("tokens", TensorProto.INT64, [1, 5]), ("bias", FLOAT, ["n", 5, 8])]
    table = {"table": np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)}
    source = write(tmp_path / "in.onnx", make_model(nodes, inputs, [("y", FLOAT, ["n", 5, 8])], initializers=table))
    assert run(source, tmp_path / "out.onnx", *QUICK).code == 0
    np.savez(tmp_path / "data.npz", tokens=np.ones((4, 5), np.int64), bias=np.ones((4, 5, 8), np.float32))
    assert run(source, tmp_path / "out.onnx", "--calib", tmp_path / "data.npz", *QUICK).code == 0
    np.savez(tmp_path / "data.npz", tokens=np.ones((4, 5), np.int64))
    check_refusal(run(source, tmp_path / "out.onnx", "--calib", tmp_path / "data.npz", *QUICK), 4, "'bias'")


# Refusals: calibration data


def bad_calibration(folder: Path, kind: str) -> Path:
    values = np.zeros((4, 3, 32, 32), np.float32)
    if kind == "empty":
        (folder / "data").mkdir()
        return folder / "data"
    if kind == "unreadable":
        (folder / "data").mkdir()
        for index in range(3):
            (folder / "data" / f"{index}.png").write_bytes(b"no picture")
        return folder / "data"
    if kind == "shape":
        values = values[..., :16]
    elif kind == "dtype":
        values = values.astype(np.uint8)
    elif kind in ("nan", "inf"):
        values[2, 1, 3, 4] = np.nan if kind == "nan" else np.inf
    path = folder / ("data.txt" if kind == "suffix" else "data.npz")
    if kind in ("suffix", "damaged"):
        path.write_bytes(b"PK\x03\x04 no archive")
    else:
        np.savez(path, image=values)
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("empty", []),
        ("unreadable", ["none of the 3 images"]),
        ("shape", ["[4, 3, 32, 16]"]),
        ("dtype", ["uint8"]),
        ("nan", ["sample 2"]),
        ("inf", ["sample 2"]),
        ("suffix", [".txt"]),
        ("damaged", []),
    ],
)
def test_calibration_data_that_are_refused(run: Run, source: Path, tmp_path: Path, kind: str, words: list[str]) -> None:
    calib = bad_calibration(tmp_path, kind)
    (tmp_path / "out.onnx").write_bytes(b"old")
    check_refusal(run(source, tmp_path / "out.onnx", "--calib", calib), 4, calib, *words)
    assert (tmp_path / "out.onnx").read_bytes() == b"old"


def test_activations_that_overflow(run: Run, source: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.full((4, 3, 32, 32), 3e38, np.float32))
    check_refusal(run(source, tmp_path / "out.onnx", "--calib", tmp_path / "data.npy"), 4, "not finite")


# Verification and bounds


def test_failed_verification_writes_nothing(run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out.onnx").write_bytes(b"old")

    def fail(*_: Any, **__: Any) -> None:
        raise VerificationError("an output of the emitted model is not finite", where="output 'logits'", hint="try another --method")

    monkeypatch.setattr(pipeline, "verify", fail)
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
    monkeypatch.setattr(pipeline, "emit", broken)
    result = run(source, tmp_path / "out.onnx", "-q", *QUICK)
    check_refusal(result, 1, "ZeroDivisionError", "the third", "-v")
    assert "Traceback" not in result.err
    verbose = run(source, tmp_path / "out.onnx", "-v", *QUICK)
    assert verbose.code == 1 and "Traceback" in verbose.err and "in broken" in verbose.err
    assert names(tmp_path) == []


def test_too_little_memory(run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(pipeline, "load_samples", exhausted)
    check_refusal(run(source, tmp_path / "out.onnx"), 1, "memory", "--samples")


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_interruption(run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("load", "canonicalise", "observe", "verify", "write_files"):
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, place, interrupted)
            result = run(source, tmp_path / "out.onnx", *QUICK)
        assert result.code == 130 and result.out == ""
        assert result.err == f"interrupted; {tmp_path / 'out.onnx'} was not written\n"
        assert names(tmp_path) == []


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
