"""ONNX Runtime Web, what runs in browsers: its package, models run in Node and in a headless Chromium, and comparisons with Python."""
