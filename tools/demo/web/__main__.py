"""Serve the page: ``python -m tools.demo.web FLOAT.onnx INT8.onnx [--web DIR]``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import UsageError
from converter.load.files import check_input
from tools.demo.web.server import describe, serving
from tools.web.package import FOLDER_VARIABLE, find_package

__all__ = ["main"]

_PORT = 8000


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.demo.web", description="A page for one's own pictures: float and int8 side by side.")
    add = parser.add_argument
    add("float", type=Path, metavar="FLOAT.onnx")
    add("int8", type=Path, metavar="INT8.onnx", help="convert it with --target web")
    add("--web", type=Path, metavar="DIR", help=f"folder of onnxruntime-web, see tools.web.setup (default {FOLDER_VARIABLE})")
    add("--port", type=int, default=_PORT, metavar="N", help=f"on this machine alone; 0 takes a free one (default {_PORT})")
    add("--picture", type=Path, metavar="FILE", help="show this one at once")
    add("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of pictures, for models that leave it open")
    flags = parser.parse_args(arguments)
    package = find_package(flags.web)
    for path in (flags.float, flags.int8):
        check_input(path)
    if flags.size is not None and min(flags.size) < 1:
        raise UsageError("a picture has at least one pixel", where="--size", hint="give HEIGHT and WIDTH")
    if flags.picture is not None and not flags.picture.is_file():
        raise UsageError("there is no such file", where=f"--picture {flags.picture}", hint="check the path")
    size = None if flags.size is None else (flags.size[0], flags.size[1])
    demo = describe({"float": flags.float, "int8": flags.int8}, package, size=size, picture=flags.picture)
    with serving(demo, flags.port) as server:
        print_line(f"http://127.0.0.1:{server.server_address[1]}/  (Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt):  # the usual end
            server.serve_forever()


if __name__ == "__main__":
    raise SystemExit(main())
