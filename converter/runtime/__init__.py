"""Ground: ONNX Runtime sessions."""
