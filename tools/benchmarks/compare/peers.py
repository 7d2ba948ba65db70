"""Other tools' quantization, as they come, on the same calibration samples.

ONNX Runtime's own is always there. NNCF is compared with where it is installed. Neural Compressor is not: version 3 has no
ONNX part, and that part's own package does not go with NumPy 2.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from converter.runtime.session import Feed

__all__ = ["PEERS", "available_peers", "feed_reader", "nncf", "ort_static"]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands out samples one by one, as ONNX Runtime's quantizer wants them."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self.left = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next sample, None at the end."""
        return next(self.left, None)


def feed_reader(feeds: Sequence[Feed]) -> CalibrationDataReader:
    """Samples as ONNX Runtime's quantizer, and tools made after it, read them."""
    return _Reader(feeds)


def ort_static(source: Path, feeds: Sequence[Feed], *, unsigned: bool = False, reduce_range: bool = False) -> onnx.ModelProto:
    """ONNX Runtime's static quantization: QDQ, int8 weights, per channel, min-max, after its own pre-processing.

    Args:
        source: float model.
        feeds: samples that calibrate.
        unsigned: activations in uint8 instead of int8.
        reduce_range: weights of 7 bits, for machines whose kernels saturate.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared, result = Path(folder) / "prepared.onnx", Path(folder) / "result.onnx"
        try:
            quant_pre_process(str(source), str(prepared))
        except Exception:  # its symbolic shape inference does not know every graph, and can be left out
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(result),
            feed_reader(feeds),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(result)


def nncf(source: Path, feeds: Sequence[Feed]) -> onnx.ModelProto:
    """NNCF's post-training quantization with the preset that its documentation gives for transformers, on all samples."""
    tool = importlib.import_module("nncf")
    model_type = tool.ModelType.TRANSFORMER
    result: onnx.ModelProto = tool.quantize(onnx.load(source), tool.Dataset(list(feeds)), subset_size=len(feeds), model_type=model_type)
    return result


PEERS: Mapping[str, Callable[[Path, Sequence[Feed]], onnx.ModelProto]] = {"ort-static": ort_static, "nncf": nncf}
"""Other tools by name."""

_PACKAGES = {"ort-static": "onnxruntime", "nncf": "nncf"}


def available_peers() -> tuple[str, ...]:
    """Names of the tools that are installed."""
    return tuple(name for name in PEERS if find_spec(_PACKAGES[name]) is not None)
