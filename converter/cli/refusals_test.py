"""What the command refuses: flags, paths, models and calibration data; exit codes and messages."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converter.runtime.session import open_session, run_session
from converter.testing.command import QUICK, check_refusal, names, write
from converter.testing.models import Run, Values, hybrid_model, make_model

FLOAT = TensorProto.FLOAT

pytestmark = pytest.mark.usefixtures("few_turns")


# Refusals: flags and paths


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--bits", "W3A4"], "4 to 8 bits each"),
        (["--bits", "W9A9"], "not a bit width"),
        (["--method", "magic"], "minmax"),
        (["--target", "gpu"], "arm64, arm64-v8.0, arm64-a55, arm64-i8mm, arm64-sme, x86, x86-vnni, web"),
        (["--target", "android"], "phones and boards are arm64, PCs x86, browsers web"),
        (["--placement", "fast"], "balanced:PRICE"),
        (["--prefer", "speed"], "accuracy, size"),
        (["--samples", "0"], "--samples"),
        (["--seed", "-3"], "--seed"),
        (["--threads", "-1"], "--threads"),
        (["--min-sqnr", "nan"], "--min-sqnr"),
        (["--preprocess", "imagnet"], "imagenet"),
        (["--input-shape", "image"], "NAME:1,3,48,320"),
        (["--input-shape", "image:1,3,64,64"], "contradicts"),
        (["--input-shape", "picture:1,3,32,32"], "'image'"),
        (["--exclude", "/stem/conv/Conf"], "'/stem/conv/Conv'"),
        (["--io", "int4"], "choose from float, uint8"),
        (["--io", "uint8"], "--preprocess unit (0..1), symmetric"),
        (["--unknown"], "no flag '--unknown'"),
        (["--calib", ""], "the path is empty"),
        (["--plan-in="], "check its variable"),
        (["--plan-in", "absent.json"], "check the path"),
    ],
)
def test_usage(run: Run, source: Path, tmp_path: Path, words: list[str], text: str) -> None:
    (tmp_path / "out.onnx").write_bytes(b"old")
    check_refusal(run(source, tmp_path / "out.onnx", *words), 2, text)
    assert (tmp_path / "out.onnx").read_bytes() == b"old" and names(tmp_path) == ["out.onnx"]


def test_paths_that_cannot_be(run: Run, source: Path, tmp_path: Path) -> None:
    check_refusal(run(tmp_path / "absent.onnx", tmp_path / "out.onnx"), 3, "does not exist", "absent.onnx")
    (tmp_path / "model.onnx").touch()
    check_refusal(run(tmp_path / "modle.onnx", tmp_path / "out.onnx"), 3, "did you mean", tmp_path / "model.onnx")
    (tmp_path / "model.onnx").unlink()
    check_refusal(run(tmp_path, tmp_path / "out.onnx"), 3, "is a folder")
    check_refusal(run(source, tmp_path), 2, "is a folder")
    check_refusal(run(source, tmp_path / "out.tflite"), 2, "not in .tflite", tmp_path / "out.onnx")
    check_refusal(run(source, tmp_path / "missing" / "out.onnx"), 2, "does not exist", tmp_path / "missing")
    check_refusal(run(source, tmp_path / "out.onnx", "--calib", tmp_path / "absent"), 4, "absent")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "what", "advice"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "a pointer of Git LFS", "git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html>", "a web page", "download the file itself"),
        (b"<html lang=en>", "a web page", "download the file itself"),
        (b"PK\x03\x04archive/data.pkl", "a zip, as PyTorch saves them", "torch.onnx.export"),
        (b"\x00\x01\x02", "not ONNX, or is truncated", "download the model again"),
    ],
    ids=["pointer", "page", "small page", "zip", "bytes"],
)
def test_what_is_taken_for_a_model_is_named(run: Run, tmp_path: Path, content: bytes, what: str, advice: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    check_refusal(run(tmp_path / "model.onnx", tmp_path / "out.onnx"), 3, what, advice)
    assert names(tmp_path) == ["model.onnx"]


def test_one_picture_and_a_folder_without_any(run: Run, source: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    check_refusal(run(source, tmp_path / "out.onnx", "--calib", tmp_path / "pictures"), 4, "there are no files", "40 pictures")
    (tmp_path / "pictures" / "one.JPG").touch()
    for given in ("one.JPG", "*.JPG", "**/*"):
        found = run(source, tmp_path / "out.onnx", "--calib", tmp_path / "pictures" / given)
        check_refusal(found, 4, f"give the folder of the pictures: {tmp_path / 'pictures'}\n")
    assert names(tmp_path) == ["pictures"]


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


# Refusals: models; load/model_test.py has them all


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
        (unary("Relu", kind=TensorProto.BFLOAT16), ["bfloat16"]),
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


def test_a_model_of_another_framework_is_told_how_to_become_onnx(run: Run, tmp_path: Path) -> None:
    for name, content, tool in (
        ("model.pt", b"PK\x03\x04", "torch.onnx.export"),
        ("model.pth", b"\x80\x02", "torch.onnx.export"),
        ("model.tflite", b"\x1c\x00\x00\x00TFL3", "tf2onnx"),
    ):
        (tmp_path / name).write_bytes(content)
        check_refusal(run(tmp_path / name, tmp_path / "out.onnx"), 3, tool)


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
    elif kind == "channels last":
        values = values.transpose(0, 2, 3, 1)
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
        ("channels last", ["[4, 32, 32, 3]", ".transpose(0, 3, 1, 2)"]),
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


@pytest.mark.parametrize("name", ["pipe.npy", "pipe.npz", "pipe.zip"])
def test_a_pipe_is_not_waited_for(run: Run, source: Path, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    check_refusal(run(source, tmp_path / "out.onnx", "--calib", tmp_path / name), 4, "neither a file nor a folder", tmp_path / name)


def test_data_that_say_nothing_where_data_are_required(run: Run, source: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "black.npy", np.zeros((6, 3, 32, 32), np.float32))
    np.save(tmp_path / "real.npy", np.random.default_rng(0).random((6, 3, 32, 32), np.float32))
    check_refusal(run(source, tmp_path / "out.onnx", "--require-data", *QUICK), 4, "no calibration data", "--require-data", "--calib")
    refusal = run(source, tmp_path / "out.onnx", "--require-data", "--calib", tmp_path / "black.npy", *QUICK)
    check_refusal(refusal, 4, "all 4 calibration samples are equal", tmp_path / "black.npy")
    assert names(tmp_path) == ["black.npy", "real.npy"]
    assert run(source, tmp_path / "out.onnx", "--require-data", "--calib", tmp_path / "real.npy", *QUICK).code == 0


def test_activations_that_overflow(run: Run, source: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.full((4, 3, 32, 32), 3e38, np.float32))
    check_refusal(run(source, tmp_path / "out.onnx", "--calib", tmp_path / "data.npy"), 4, "not finite")
