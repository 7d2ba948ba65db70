"""Methods: each chooses quantization parameters. They know tensors and layers, and no ONNX."""
