"""A web page for one's own pictures: a float and an int8 model side by side, with their times, in ONNX Runtime Web."""
