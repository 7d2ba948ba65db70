"""Other tools' quantization, as they come, on the same calibration samples."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from converter.runtime import Feed

__all__ = ["ort_static"]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands out samples one by one, as ONNX Runtime's quantizer wants them."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self.left = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next sample, None at the end."""
        return next(self.left, None)


def ort_static(source: Path, feeds: Sequence[Feed]) -> onnx.ModelProto:
    """ONNX Runtime's static quantization: QDQ, int8 activations and weights, per channel, min-max, after its own pre-processing."""
    with tempfile.TemporaryDirectory() as folder:
        prepared, result = Path(folder) / "prepared.onnx", Path(folder) / "result.onnx"
        quant_pre_process(str(source), str(prepared))
        quantize_static(
            str(prepared),
            str(result),
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(result)
