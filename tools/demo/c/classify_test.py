"""The sample in C against Python, on this machine and on an emulated ARM64 one. Skipped where headers or compilers are not to be had."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from converter.calibration.preprocess import apply_preprocess, parse_preprocess
from converter.errors import ConverterError
from converter.load.metadata import PREPROCESS
from converter.options import Options
from converter.pipeline import convert
from converter.runtime.session import open_session, run_session
from converter.targets import TARGETS
from converter.testing.models import hybrid_model
from runtime_tests.emulation.command import EMULATOR, guest_variables, lay_out_root
from runtime_tests.emulation.cores import CORES
from runtime_tests.emulation.environment import environment
from runtime_tests.emulation.setup import missing_steps
from tools.demo.c.build import CROSS_COMPILER, build, build_for_arm64, fetch_headers

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")]

ENV = environment()
CORE = "cortex-a76"
SPECS = ("imagenet", "symmetric;resize=pad", "mean=0.5,0.4,0.3;std=0.2;resize=stretch")
THIS_TARGET = "x86-vnni" if platform.machine() in ("x86_64", "AMD64") else "arm64"


@pytest.fixture(scope="module")
def headers() -> Path:
    """Where ``make sample`` has put them, or puts them."""
    try:
        return fetch_headers(Path(__file__).parents[3] / "build" / "c")
    except ConverterError as error:
        pytest.skip(f"no headers of ONNX Runtime's C API: {error.what}")


@pytest.fixture(scope="module")
def program(headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("c"), headers)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wider than high, and larger than the network's input; the header has a comment."""
    path = tmp_path_factory.mktemp("picture") / "picture.ppm"
    tiles = np.random.default_rng(5).integers(0, 256, (9, 13, 3)).astype(np.uint8)
    Image.fromarray(np.kron(tiles, np.ones((11, 9, 1), np.uint8))).save(path)
    header, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(header + b"\n# made by a test\n" + rest)
    return path


def model(folder: Path, spec: str | None, target: str) -> tuple[Path, Path]:
    """An int8 network, which says how pictures become inputs, in both formats."""
    floats = hybrid_model(metadata={} if spec is None else {PREPROCESS: spec})
    onnx_file, ort_file = folder / "int8.onnx", folder / "int8.ort"
    convert(floats, onnx_file, Options(samples=3, threads=1, method="minmax", placement="all", target=target), ort_out=ort_file)
    return onnx_file, ort_file


def by_python(path: Path, picture: Path, spec: str, settings: Mapping[str, str]) -> np.ndarray:
    pixels = apply_preprocess(Image.open(picture), 32, 32, 3, parse_preprocess(spec))
    scores: np.ndarray = run_session(open_session(path, threads=1, settings=settings), {"image": pixels[None]})["logits"][0]
    return scores


def answers(command: Sequence[object], variables: Mapping[str, str] | None = None) -> dict[int, float]:
    """Index and score of each line, in order."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True, env=variables)
    return {int(index): float(score) for index, score in (line.split() for line in done.stdout.splitlines())}


@pytest.mark.parametrize("spec", SPECS)
def test_it_prepares_pictures_to_the_bit_as_the_calibration_did(program: Path, picture: Path, tmp_path: Path, spec: str) -> None:
    """The float model: a pixel that differs by one code would move every score."""
    path = tmp_path / "float.onnx"
    onnx.save(hybrid_model(metadata={PREPROCESS: spec}), path)
    scores = by_python(path, picture, spec, {})
    best = np.argsort(-scores)[:5]
    assert answers([program, path, picture]) == {int(index): pytest.approx(float(scores[index]), rel=1e-6) for index in best}


def test_int8_in_both_formats(program: Path, picture: Path, tmp_path: Path) -> None:
    spec = SPECS[0]
    wanted = by_python((files := model(tmp_path, spec, THIS_TARGET))[0], picture, spec, {})
    for path in files:
        found = answers([program, path, picture])
        assert list(found) == list(np.argsort(-wanted, kind="stable")[:5])
        assert list(found.values()) == pytest.approx([float(wanted[index]) for index in found], rel=1e-4, abs=1e-4)


def test_an_open_size_and_no_metadata(program: Path, picture: Path, tmp_path: Path) -> None:
    path = tmp_path / "open.onnx"
    onnx.save(hybrid_model(dynamic_size=True, dynamic_batch=True, metadata={}), path)
    scores = by_python(path, picture, "unit", {})
    best = np.argsort(-scores)[:5]
    assert answers([program, path, picture, 32, 32]) == {int(index): pytest.approx(float(scores[index]), rel=1e-6) for index in best}
    refused = subprocess.run([program, path, picture], capture_output=True, text=True)
    assert (refused.returncode, refused.stderr) == (1, "error: the model's open size: say which HEIGHT and WIDTH\n")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"P5 1 1 255\n\0", "no binary PPM"), (b"P6 2 2 255\n\0", "it ends early"), (b"P6 0 1 255\n", "makes no sense")],
)
def test_pictures_that_are_none(program: Path, tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "x.ppm").write_bytes(content)
    onnx.save(hybrid_model(), tmp_path / "x.onnx")
    done = subprocess.run([program, tmp_path / "x.onnx", tmp_path / "x.ppm"], capture_output=True, text=True)
    assert done.returncode == 1 and complaint in done.stderr and done.stdout == ""


@pytest.mark.skipif(bool(missing_steps(ENV)), reason="the ARM64 emulation is not set up (python -m tools.arm64.setup)")
@pytest.mark.skipif(shutil.which(CROSS_COMPILER) is None, reason="no compiler for ARM64 (python -m tools.demo.c FOLDER --arm64)")
def test_on_an_arm64_core_it_answers_as_python_here(headers: Path, picture: Path, tmp_path: Path) -> None:
    """Float operators round otherwise there, which may move single codes."""
    program = build_for_arm64(tmp_path / "arm64", headers, ENV)
    root = lay_out_root(ENV, CORE, tmp_path / "root")
    spec = SPECS[0]
    files = model(tmp_path, spec, "arm64")
    wanted = by_python(files[0], picture, spec, TARGETS["arm64"].session_settings.get(platform.machine(), {}))
    for path in files:
        emulated = ["taskset", "--cpu-list", 0, EMULATOR, "-L", root, "-cpu", CORES[CORE].emulated, program, path, picture]
        found = answers(emulated, guest_variables(ENV))
        assert next(iter(found)) == int(wanted.argmax())
        near = 0.02 * float(np.abs(wanted).max())
        assert list(found.values()) == pytest.approx([float(wanted[index]) for index in found], abs=near)
