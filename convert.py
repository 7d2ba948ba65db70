"""Convert a float ONNX hybrid vision transformer to int8: ``python convert.py IN.onnx OUT.onnx``."""

from __future__ import annotations

import sys


def _run() -> int:
    try:
        from converter.cli.main import main
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return main()


if __name__ == "__main__":
    raise SystemExit(_run())
