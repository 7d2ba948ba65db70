"""``python -m runtime_tests FLOAT.onnx INT8.onnx``: proof on what runs."""

from __future__ import annotations

from runtime_tests.command_line import main

if __name__ == "__main__":
    raise SystemExit(main())
