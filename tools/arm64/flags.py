"""Flags of the commands that run models on an emulated core."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from converter.cli.command import Parser
from converter.load.files import check_outputs
from runtime_tests.emulation.environment import RUNTIME_CHOICE

__all__ = ["model_parser", "parse_models"]


def model_parser(prog: str, description: str, cores: Iterable[str], per_op: str) -> Parser:
    """A parser for models, a core, inputs, a version of the runtime, and a file for the results.

    Args:
        prog: the command.
        description: what it does.
        cores: which there are.
        per_op: what ``--per-op`` does.
    """
    parser = Parser(prog=prog, description=description)
    add = parser.add_argument
    add("models", nargs="+", type=Path, metavar="MODEL.onnx", help="ratios are to the first one")
    add("--core", default="cortex-a76", metavar="CORE", help=f"{' | '.join(cores)} (default cortex-a76)")
    add("--inputs", type=Path, metavar="NPZ", help="arrays to run on (default: seeded noise)")
    add("--seed", type=int, default=0, metavar="N", help="of the noise (default 0)")
    add("--per-op", action="store_true", help=per_op)
    add("--json", type=Path, metavar="FILE", help="write everything as JSON")
    add("--runtime", default="newest", metavar="VERSION", help=f"ONNX Runtime: {RUNTIME_CHOICE} (default newest)")
    add("--root", type=Path, metavar="DIR", help="folder of the set-up")
    return parser


def parse_models(parser: Parser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags, once it is known that the results would not be written over a model.

    Raises:
        UsageError: they would, or not be written at all.
    """
    flags = parser.parse_args(arguments)
    if flags.json is not None:
        check_outputs({"--json": flags.json}, {f"MODEL {place}": model for place, model in enumerate(flags.models, 1)})
    return flags
