"""Convert a float ONNX hybrid vision transformer to int8: ``python convert.py IN.onnx OUT.onnx``."""

from __future__ import annotations

from converter.command_line import main

if __name__ == "__main__":
    raise SystemExit(main())
