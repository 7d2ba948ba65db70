from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import pytest

from converter.calibration.preprocess import PRESETS
from converter.errors import ModelError, UsageError
from converter.options import Options
from converter.pipeline import convert
from runtime_tests.model_pair import open_model_pair
from runtime_tests.processes import measure_memory
from runtime_tests.quality import measure_closeness
from runtime_tests.testing.files import MakeFiles

on_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="settings that imitate ARM64 are for x86")
SIGNED = {"session.qdqisint8allowed": "1"}


@on_x86
def test_a_converted_file_says_what_it_was_made_for(make_files: MakeFiles) -> None:
    files = make_files(bits=(6, 5))
    model_pair = open_model_pair(files.floats, files.int8, count=3)
    assert (model_pair.target, model_pair.bits, dict(model_pair.settings), len(model_pair.feeds)) == ("arm64", (6, 5), SIGNED, 3)
    assert model_pair.feeds[0]["x"].shape == (1, 3, 16, 16)


@on_x86
@pytest.mark.parametrize(("target", "settings"), [("arm64", SIGNED), ("x86", {})])
def test_a_file_of_unknown_origin_runs_with_the_kernels_of_its_types(make_files: MakeFiles, target: str, settings: dict[str, str]) -> None:
    files = make_files(target=target, says=False)
    model_pair = open_model_pair(files.floats, files.int8)
    assert (model_pair.target, model_pair.bits, dict(model_pair.settings)) == (None, None, settings)


def test_models_in_the_wrong_order_are_told(make_files: MakeFiles) -> None:
    files = make_files()
    with pytest.raises(UsageError, match="the first model is quantized") as caught:
        open_model_pair(files.int8, files.floats)
    assert caught.value.hint == "give the float model first, then the int8 model"


def test_two_models_with_other_outputs_are_no_pair(make_files: MakeFiles) -> None:
    def rename(model: onnx.ModelProto) -> None:
        old, model.graph.output[0].name = model.graph.output[0].name, "scores"
        for node in model.graph.node:
            node.output[:] = ["scores" if name == old else name for name in node.output]

    files = make_files()
    files.edit(rename)
    with pytest.raises(ModelError, match="different outputs"):
        open_model_pair(files.floats, files.int8)


def test_beside_a_model_that_takes_pixels_the_float_one_normalises_them(make_files: MakeFiles, tmp_path: Path) -> None:
    files = make_files()
    options = Options(samples=4, threads=1, method="minmax", placement="all", io="uint8", preprocess=PRESETS["imagenet"])
    convert(files.floats, files.int8, options)
    pair = open_model_pair(files.floats, files.int8, count=2)
    assert pair.takes_pixels and pair.feeds[0]["x"].dtype == np.uint8
    assert measure_closeness(pair).sqnr_db > 10.0
    assert pair.float_file(tmp_path) != files.floats and measure_memory(pair).float_peak > 0


def test_how_the_float_model_reads_pixels_must_be_known(make_files: MakeFiles) -> None:
    files = make_files()
    files.edit(lambda model: onnx.helper.set_model_props(model, {"bridgequant.io": "uint8"}))
    with pytest.raises(UsageError, match="neither of the two says how the float model's inputs are made of them"):
        open_model_pair(files.floats, files.int8)
