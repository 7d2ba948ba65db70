"""Models in ONNX Runtime Web itself, in Node and in a headless Chromium, beside Python; skipped where one of them is not there."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.errors import ConverterError, UsageError
from converter.options import Options
from converter.pipeline import convert
from models.export import build, export_model
from runtime_tests.model_pair import open_model_pair
from tools.web.chromium import find_chromium
from tools.web.compare import compared
from tools.web.jobs import Job, read_outputs
from tools.web.node import run_in_node
from tools.web.package import Package, find_node, find_package

pytestmark = pytest.mark.slow

CHECKPOINT = Path(__file__).parents[2] / "models" / "checkpoints" / "mobilevit_xxs.safetensors"
IMAGES = 50


@pytest.fixture(scope="module")
def package() -> Package:
    try:
        find_node()
        return find_package()
    except UsageError as error:
        pytest.skip(f"no ONNX Runtime Web: {error.what} ({error.hint})")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A trained network, and its file for browsers."""
    folder = tmp_path_factory.mktemp("web")
    floats, int8 = folder / "float.onnx", folder / "int8.onnx"
    floats.write_bytes(export_model(build("mobilevit_xxs", checkpoint=CHECKPOINT)))
    report = convert(floats, int8, Options(method="mse", target="web", threads=1))
    assert report.verdict is not None and report.verdict.integer_coverage.coverage > 0.3
    return floats, int8


@pytest.mark.parametrize("engine", ["node", "chromium"])
def test_both_models_answer_as_in_python(engine: str, package: Package, converted: tuple[Path, Path]) -> None:
    if engine == "chromium":
        try:
            find_chromium()
        except UsageError as error:
            pytest.skip(error.what)
    found = compared(open_model_pair(*converted, count=IMAGES), engine, package, turns=5)
    assert (found.floats.samples, found.floats.same) == (IMAGES, IMAGES) and found.floats.difference < 1e-4
    # a code that a last bit of a float kernel moves may change the answer to a picture whose two best classes are as good as equal
    assert found.integers.samples == IMAGES and found.integers.same >= IMAGES - 1
    assert found.latency.turns == 5


def in_node(model: onnx.ModelProto, feed: dict[str, npt.NDArray[np.uint8]], package: Package) -> npt.NDArray[np.int32]:
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder))
        job.outputs(job.model(model), [job.feed(feed)])
        run_in_node(job, package)
        ((outputs,),) = (read_outputs(result, job.folder) for result in job.results())
    return outputs["y"]


@pytest.mark.parametrize("weight", [-128, 127])
def test_products_of_extreme_codes_are_exact(weight: int, package: Package) -> None:
    """Two products of 255 and 127 are 64770, which does not fit into 16 bits: kernels that add pairs there would give less."""
    weights = np.full((64, 32), weight, np.int8)
    y = in_node(_model("MatMulInteger", weights, (4, 64)), {"x": np.full((4, 64), 255, np.uint8)}, package)
    assert y.dtype == np.int32 and (y == 64 * 255 * weight).all()


@pytest.mark.parametrize("groups", [1, 64])
def test_convolutions_of_extreme_codes_are_exact(groups: int, package: Package) -> None:
    generator = np.random.default_rng(0)
    x = generator.choice(np.array([0, 255], np.uint8), (1, 64, 3, 3))
    weights = generator.choice(np.array([-128, 127], np.int8), (64, 64 // groups, 3, 3))
    y = in_node(_model("ConvInteger", weights, x.shape, group=groups), {"x": x}, package)
    grouped = x.reshape(groups, 64 // groups, 9).astype(int), weights.reshape(groups, 64 // groups, 64 // groups, 9).astype(int)
    assert np.array_equal(y.ravel(), np.einsum("gip,goip->go", *grouped).ravel())


def _model(op_type: str, weights: npt.NDArray[np.int8], shape: tuple[int, ...], **attributes: int) -> onnx.ModelProto:
    node = helper.make_node(op_type, ["x", "w"], ["y"], **attributes)
    ends = [helper.make_tensor_value_info("x", TensorProto.UINT8, shape), helper.make_tensor_value_info("y", TensorProto.INT32, None)]
    graph = helper.make_graph([node], "extremes", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_the_runtime_refuses_is_told(package: Package, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    job = Job(tmp_path)
    job.outputs(job.model(tmp_path / "broken.onnx"), [])
    with pytest.raises(ConverterError, match="ONNX Runtime Web fails in Node"):
        run_in_node(job, package)
