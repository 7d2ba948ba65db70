from __future__ import annotations

import numpy as np
import onnx
import pytest

from runtime_tests.confinement import measure_confinement
from runtime_tests.model_pair import open_model_pair
from runtime_tests.testing.files import MakeFiles, initializer, remove_clip, weight_of


@pytest.mark.parametrize("target", ["arm64", "x86"])
@pytest.mark.parametrize("says", [True, False])
def test_a_sound_model_keeps_its_codes(make_files: MakeFiles, target: str, says: bool) -> None:
    files = make_files((6, 5), target, says=says)
    found = measure_confinement(open_model_pair(files.floats, files.int8))
    assert found.activations > 2
    assert (found.weights, found.escapes) == (3 if says else 0, ())


def test_nothing_can_leave_eight_bits(make_files: MakeFiles) -> None:
    files = make_files()
    found = measure_confinement(open_model_pair(files.floats, files.int8))
    assert (found.activations, found.weights, found.escapes) == (0, 0, ())


def test_a_missing_clip_is_found(make_files: MakeFiles) -> None:
    """The file says that five bits enter layers; without the Clip, far inputs need more."""
    files = make_files((8, 5))
    files.edit(remove_clip)
    (escape,) = measure_confinement(open_model_pair(files.floats, files.int8)).escapes
    assert escape.allowed == (-16, 15)
    assert escape.found[1] > 15


def test_weights_are_held_to_what_the_target_takes_without_saturating(make_files: MakeFiles) -> None:
    """AVX2 adds pairs of products in 16 bits: beside activations of 8 bits, dense weights have 7."""
    files = make_files(target="x86")
    found = measure_confinement(open_model_pair(files.floats, files.int8))
    assert (found.weights, found.escapes) == (3, ())

    def enlarge(model: onnx.ModelProto) -> None:
        tensor = initializer(model, weight_of(model, "Conv").input[0])
        codes = onnx.numpy_helper.to_array(tensor).copy()
        codes.reshape(-1)[0] = 100
        tensor.CopyFrom(onnx.numpy_helper.from_array(codes.astype(np.int8), tensor.name))

    files.edit(enlarge)
    (escape,) = measure_confinement(open_model_pair(files.floats, files.int8)).escapes
    assert (escape.allowed, escape.found[1]) == ((-64, 63), 100)


def test_a_weight_beyond_its_bits_is_found(make_files: MakeFiles) -> None:
    def enlarge(model: onnx.ModelProto) -> None:
        tensor = initializer(model, weight_of(model, "Conv").input[0])
        codes = onnx.numpy_helper.to_array(tensor).copy()
        codes.reshape(-1)[0] = 40
        tensor.CopyFrom(onnx.numpy_helper.from_array(codes.astype(np.int8), tensor.name))

    files = make_files((6, 8))
    files.edit(enlarge)
    (escape,) = measure_confinement(open_model_pair(files.floats, files.int8)).escapes
    assert (escape.allowed, escape.found[1]) == ((-32, 31), 40)
