"""The native runner, built here, with the library of the Python package. Needs the headers of ONNX Runtime's C API."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from converter.errors import ConverterError, UsageError
from converter.targets import find_target
from tools.device_bench.__main__ import main
from tools.device_bench.native import Native, check_native, pack_tensors, run_native, setting_words, unpack_tensors
from tools.device_bench.testing.adb import calls_in
from tools.device_bench.testing.converted import Converted
from tools.device_bench.testing.whole import QUICK, benched, check
from tools.device_bench.transport import Transport

HEADERS = Path(os.environ.get("ONNXRUNTIME_HEADERS") or Path(__file__).parents[2] / "build" / "c" / "headers")
"""By default those that ``make sample`` fetches."""

SOURCE = Path(__file__).with_name("native.c")
LIBRARIES = sorted(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))

SETTINGS = setting_words(find_target("arm64").session_settings.get(os.uname().machine, {}))
"""What this machine needs for the kernels of ARM64."""

needs_headers = pytest.mark.skipif(
    not (HEADERS / "onnxruntime_c_api.h").is_file() or shutil.which("gcc") is None or not LIBRARIES,
    reason="no gcc, or no headers of ONNX Runtime's C API (make sample, or ONNXRUNTIME_HEADERS=DIR), or no library in its package",
)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("native") / "native"
    command = ["gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-I", str(HEADERS), str(SOURCE), "-o", str(out), "-ldl"]
    subprocess.run(command, check=True)
    return out


@pytest.mark.slow
@needs_headers
def test_a_phone_without_python(converted: Converted, adb_calls: Path, runner: Path, tmp_path: Path) -> None:
    words = ["--library", str(LIBRARIES[0]), "--runner", str(runner)]
    found = benched(converted, "--adb", "R58N1", "--cores", "0", *words)
    check(found, converted, os.uname().machine)
    assert found["device"]["onnxruntime"] == onnxruntime.__version__ and "python" not in found["device"]
    assert list((tmp_path / "device").iterdir()) == []
    calls = [call[3] for call in calls_in(adb_calls) if call[2] == "shell" and "/native " in call[3]]
    folder = calls_in(adb_calls)[-1][-1].removeprefix("rm -rf ")
    program, pinned = f"{folder}/native {folder}/libonnxruntime.so", f"taskset 1 {folder}/native {folder}/libonnxruntime.so"
    files = [f"{folder}/model0/float.onnx", f"{folder}/model1/int8.onnx"]
    assert calls == [
        program,
        f"{pinned} once {folder}/samples {folder}/outputs",
        f"{pinned} once {folder}/samples {folder}/outputs0 {files[0]}",
        f"{pinned} once {folder}/samples {folder}/outputs1 {' '.join([files[1], *SETTINGS])}",
        f"{pinned} turns {folder}/samples 1 0 0.0 {' '.join(files)}",
    ]
    by_python = benched(converted, "--local", "--python", sys.executable)
    for native, python in zip(found["models"], by_python["models"], strict=True):
        assert native["outputs"] == python["outputs"], "the same library gives the same numbers"


@pytest.mark.slow
@needs_headers
def test_what_fails_there_is_told(
    converted: Converted, adb_calls: Path, runner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.so"
    other.write_bytes(b"no library")
    words = [str(converted.floats), str(converted.int8), "--adb", "--runner", str(runner), *QUICK]
    assert main([*words, "--library", str(other)]) == 1
    assert "ONNX Runtime does not load on the device" in capsys.readouterr().err
    assert list((tmp_path / "device").iterdir()) == []


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "float16"])
def test_tensors_come_back_as_they_went(dtype: str) -> None:
    tensors = {"": np.arange(6).reshape(2, 3).astype(dtype), "a/ü name": np.zeros((0, 2), dtype)}
    back = unpack_tensors(pack_tensors(tensors))
    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        np.testing.assert_array_equal(back[name], tensor)


def test_the_file_of_one_number() -> None:
    """Seven numbers of eight bytes, the name, and one float, in the order that native.c names."""
    packed = pack_tensors({"x": np.array([1.0], np.float32)})
    numbers = [int.from_bytes(packed[at : at + 8], "little") for at in (0, 8, 17, 25, 33, 41)]
    assert numbers == [1, 1, 1, 1, 1, 4]  # one tensor, a name of one letter, float, one axis, of one, four bytes
    assert (packed[16:17], packed[49:]) == (b"x", bytes.fromhex("0000803f"))


def test_outputs_that_end_early_are_refused() -> None:
    with pytest.raises(ConverterError, match="did not arrive whole"):
        unpack_tensors(pack_tensors({"x": np.zeros(4, np.float32)})[:-1])


def test_a_runner_that_says_something_else() -> None:
    device = Transport("a phone", "/tmp", lambda words: "hello", lambda *_: None, lambda *_: None)
    with pytest.raises(ConverterError, match="does not answer as it should"):
        run_native(device, "/folder")


def test_files_that_are_not_there(tmp_path: Path, converted: Converted, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="there is no such file") as caught:
        check_native(Native(SOURCE, tmp_path / "native"))
    assert caught.value.where == f"--runner {tmp_path / 'native'}"
    assert main([str(converted.floats), str(converted.int8), "--local", "--library", str(SOURCE)]) == 2
    assert "--library and --runner go together" in capsys.readouterr().err
