"""bridgequant: float ONNX hybrid vision transformers to int8 QDQ models that run in integer."""
