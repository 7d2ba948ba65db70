"""What OpenVINO makes of a quantizer behind a Concat: ``python -m tools.importers.signed_concat``. Needs OpenVINO.

A convolution reads codes, signed or unsigned, of one input or of two that are joined. Each of the four graphs runs with OpenVINO's own
integer transformations and without; a row gives the signal-to-noise ratio against ONNX Runtime without any optimisation, in dB.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import UsageError
from converter.runtime.session import Feed, run_model
from tools.importers.engines import openvino_model, openvino_settings

__all__ = ["convolution", "main", "openvino_decibels"]

_CHANNELS, _SIZE = 32, 8
_SCALE = 0.045


def convolution(*, signed: bool, joined: bool, seed: int = 0) -> onnx.ModelProto:
    """A 1x1 convolution with int8 weights, one scale per channel, behind a quantizer with its zero point in the middle.

    Args:
        signed: whether codes are int8 instead of uint8.
        joined: whether a Concat of two inputs stands in front of the quantizer.
        seed: of the weights.
    """
    rng = np.random.default_rng(seed)
    inputs = ["x", "y"] if joined else ["x"]
    columns = _CHANNELS * len(inputs)
    constants = {
        "scale": np.float32(_SCALE),
        "zero": np.int8(0) if signed else np.uint8(128),
        "weight": rng.integers(-127, 128, size=(_CHANNELS, columns, 1, 1)).astype(np.int8),
        "weight_scale": rng.uniform(0.001, 0.002, _CHANNELS).astype(np.float32),
        "weight_zero": np.zeros(_CHANNELS, np.int8),
    }
    nodes = [
        *([helper.make_node("Concat", inputs, ["both"], axis=1)] if joined else []),
        helper.make_node("QuantizeLinear", ["both" if joined else "x", "scale", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["read"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["kernel"], axis=0),
        helper.make_node("Conv", ["read", "kernel"], ["z"], kernel_shape=[1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, _CHANNELS, _SIZE, _SIZE)) for name in inputs],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, _CHANNELS, _SIZE, _SIZE))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def openvino_decibels(model: onnx.ModelProto, feed: Feed, **settings: str) -> float:
    """Signal-to-noise ratio of OpenVINO's output in float32 against ONNX Runtime's without optimisation, in dB."""
    (wanted,) = run_model(model, feed, optimise=False).values()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        (got,) = openvino_model(path, openvino_settings(INFERENCE_PRECISION_HINT="f32", **settings))(feed)
    noise = float(np.linalg.norm(wanted - got))
    return 20 * math.log10(float(np.linalg.norm(wanted)) / noise) if noise > 0 else math.inf


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    Parser(prog="python -m tools.importers.signed_concat", description="OpenVINO and a quantizer behind a Concat.").parse_args(arguments)
    rng = np.random.default_rng(1)
    feed = {name: rng.normal(size=(1, _CHANNELS, _SIZE, _SIZE)).astype(np.float32) for name in ("x", "y")}
    print_line("| a convolution reads | OpenVINO | without its integer transformations |\n| --- | ---: | ---: |")
    for signed in (True, False):
        for joined in (False, True):
            model, given = convolution(signed=signed, joined=joined), feed if joined else {"x": feed["x"]}
            try:
                found = [openvino_decibels(model, given), openvino_decibels(model, given, LP_TRANSFORMS_MODE="NO")]
            except ModuleNotFoundError:
                raise UsageError("there is no OpenVINO", where="openvino", hint="install it: pip install openvino") from None
            name = f"{'int8' if signed else 'uint8'} of {'a Concat' if joined else 'one input'}"
            print_line(f"| {name} | {' | '.join(f'{value:.0f} dB' for value in found)} |")


if __name__ == "__main__":
    raise SystemExit(main())
