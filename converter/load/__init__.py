"""Load: read a float ONNX model, refuse what cannot be converted, and make the rest one kind of file."""
