"""A sample in C: a picture is classified with ONNX Runtime's C API, prepared as the model's metadata say."""
