"""Make one int8 model with another tool, in a process and perhaps an interpreter of its own.

``python -m tools.benchmarks.real.other_tools TOOL FLOAT.onnx INT8.onnx CALIB.npz [--samples N]``; the seconds go to stdout as JSON.
It needs no more than that tool, ONNX Runtime and NumPy.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import UsageError
from converter.load.files import write_files
from converter.runtime.session import Feed
from tools.benchmarks.compare.peers import feed_reader, nncf, ort_static

__all__ = ["ELSEWHERE", "PEERS", "main", "quark"]


def quark(source: Path, feeds: Sequence[Feed]) -> onnx.ModelProto:
    """AMD Quark's post-training quantization: its int8 activations and weights as they come, and cross-layer equalization."""
    tool = importlib.import_module("quark.onnx")
    spec = tool.QLayerConfig(activation=tool.Int8Spec(), weight=tool.Int8Spec())
    config = tool.QConfig(global_config=spec, algo_config=[tool.CLEConfig()])
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.onnx"
        with contextlib.chdir(folder):  # it leaves a table of what it did where it runs
            tool.ModelQuantizer(config).quantize_model(str(source.resolve()), str(result), feed_reader(feeds))
        return onnx.load(result)


PEERS: Mapping[str, Callable[[Path, Sequence[Feed]], onnx.ModelProto]] = {
    "ort-s8s8": ort_static,
    "ort-u8s8": partial(ort_static, unsigned=True),
    "ort-u8s8-reduced": partial(ort_static, unsigned=True, reduce_range=True),
    "nncf": nncf,
    "quark": quark,
}
"""Other tools, which are asked for 8 bits only."""

ELSEWHERE = {"nncf": "nncf", "quark": "quark.onnx"}
"""Those that come as packages of their own, and these."""


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.benchmarks.real.other_tools", description="Make one int8 model with another tool.")
    add = parser.add_argument
    add("tool", choices=tuple(PEERS))
    add("source", type=Path, metavar="FLOAT.onnx")
    add("output", type=Path, metavar="INT8.onnx")
    add("calib", type=Path, metavar="CALIB.npz")
    add("--samples", type=int, default=32)
    flags = parser.parse_args(arguments)
    if flags.tool in ELSEWHERE:
        try:
            importlib.import_module(ELSEWHERE[flags.tool])
        except ImportError as error:
            hint = "name an interpreter that has it with --peers-python"
            raise UsageError(f"{flags.tool} cannot be imported: {error}", where=flags.tool, hint=hint) from None
    arrays = np.load(flags.calib)
    count = min(flags.samples, len(arrays[arrays.files[0]]))
    loaded = {name: arrays[name] for name in arrays.files}
    feeds = [{name: array[place : place + 1] for name, array in loaded.items()} for place in range(count)]
    begun = time.process_time()
    made = PEERS[flags.tool](flags.source, feeds)
    seconds = time.process_time() - begun
    write_files({flags.output: made.SerializeToString(deterministic=True)})
    print_line(json.dumps({"seconds": seconds}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
