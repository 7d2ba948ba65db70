"""Converted files in runtimes other than ONNX Runtime."""
