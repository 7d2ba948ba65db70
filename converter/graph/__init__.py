"""Ground: questions about ONNX graphs, and edits of them."""
