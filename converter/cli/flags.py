"""The flags of the command line. Loads nothing heavy, so that ``--help`` and mistakes are answered at once."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from converter import __version__
from converter.errors import UsageError
from converter.methods.names import DEFAULT_METHOD, DEFAULT_OBSERVER, METHOD_NAMES, OBSERVERS

__all__ = ["parse_flags"]

_UNKNOWN = "unrecognized arguments: "


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if message.startswith(_UNKNOWN):
            raise self._unknown(message.removeprefix(_UNKNOWN).split()[0])
        flag, _, what = message.partition(": ") if message.startswith("argument ") else ("", "", message)
        raise UsageError(what, where=flag.removeprefix("argument "), hint="see --help")

    def _unknown(self, word: str) -> UsageError:
        flags = [f for action in self._actions for f in action.option_strings]
        near = difflib.get_close_matches(word.split("=")[0], flags, n=1)
        if not word.startswith("-"):
            return UsageError(f"'{word}' is one path too many", hint="give IN.onnx and OUT.onnx; see --help")
        return UsageError(f"there is no flag '{word}'", hint=f"did you mean {near[0]}? see --help" if near else "see --help")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def _parser() -> _Parser:
    parser = _Parser(
        prog="bridgequant",
        usage="%(prog)s IN.onnx OUT.onnx [options]",
        description="Convert a float ONNX hybrid vision transformer to an int8 QDQ model for ONNX Runtime.",
        epilog="Exit codes: 0 written and verified, 1 unexpected, 2 usage, 3 model, 4 calibration data, 5 verification failed, "
        "6 a requested bound missed, 130 interrupted. Nothing is written unless the code is 0.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", metavar="IN.onnx", type=Path, nargs="?", help="float model")
    add("output", metavar="OUT.onnx", type=Path, nargs="?", help="int8 model; replaced if it exists")

    add = parser.add_argument_group("calibration").add_argument
    add("--calib", type=Path, metavar="PATH", help="folder or zip of images, .npz or .npy (default: built-in synthetic samples)")
    add("--samples", type=_whole, default=32, metavar="N", help="how many calibrate (default 32); up to a quarter more compare")
    add("--require-data", action="store_true", help="refuse built-in samples, and data that say nothing (all equal, black pictures)")
    add("--preprocess", metavar="SPEC", help="of images: imagenet, unit, symmetric, or 'mean=..;std=..', with ';resize=stretch|crop|pad'")
    add("--input-shape", action="append", default=[], metavar="NAME:DIMS", help="size of an open input, as x:1,3,48,320; repeatable")

    add = parser.add_argument_group("conversion").add_argument
    add("--method", default="", metavar="NAME", help=f"how grids are chosen: {', '.join(METHOD_NAMES)} (default {DEFAULT_METHOD})")
    add("--observer", default="", metavar="HOW", help=f"fq-vit: how it sees ranges: {', '.join(OBSERVERS)} (default {DEFAULT_OBSERVER})")
    add("--bits", default="W8A8", metavar="WxAy", help="bits of weights and of what enters layers, 4 to 8 each (default: W8A8)")
    add("--target", default="arm64", metavar="NAME", help="arm64 (default), arm64-v8.0, arm64-i8mm, x86, x86-vnni, or a FILE.toml")
    add(
        "--placement",
        metavar="HOW",
        help="latency: fastest that stays near float (default); balanced:PRICE; all: in integer",
    )
    add("--full", action="store_true", help="quantize softmax, norms and all else too, for machines without float")
    add("--adaptive-rounding", action=argparse.BooleanOptionalAction, default=True, help="q-hyvit, weights below 8 bits (default: on)")
    add("--activation-ranges", action=argparse.BooleanOptionalAction, default=True, help="q-hyvit: activations judge ranges (default: on)")
    add("--output-trials", action=argparse.BooleanOptionalAction, default=True, help="q-hyvit: outputs decide some ranges (default: on)")
    add("--range-room", action=argparse.BooleanOptionalAction, default=True, help="q-hyvit: ranges leave room (default: on)")
    add("--weight-correction", action=argparse.BooleanOptionalAction, default=True, help="q-hyvit, weights below 8 bits (default: on)")
    add("--bias-correction", action=argparse.BooleanOptionalAction, default=True, help="q-hyvit: correct mean errors (default: on)")
    add("--ramps", action=argparse.BooleanOptionalAction, default=True, help="q-hyvit: lines for some sigmoids (default: on)")
    add("--loss", action="append", default=[], metavar="NAME=KIND", help="count errors of an output as of scores or values; repeatable")
    add("--exclude", action="append", default=[], metavar="PATTERN", help="keep operators float, by name glob or type; repeatable")
    add("--min-sqnr", type=_number, metavar="DB", help="write nothing (exit 6) if an output is closer to float by fewer decibels")
    add("--seed", type=_whole, default=0, metavar="N", help="of all random choices (default 0)")
    add("--threads", type=_whole, default=0, metavar="N", help="of the runtime; 0 lets it choose (default)")

    add = parser.add_argument_group("plan and report").add_argument
    add("--plan-out", type=Path, metavar="FILE", help="write the plan as JSON")
    add("--plan-in", type=Path, metavar="FILE", help="use this plan, perhaps edited, instead of making one")
    add("--json", metavar="FILE", help="write the report as JSON; - is stdout")
    add("--dry-run", action="store_true", help="stop after planning: write no model")
    add("--explain", action="store_true", help="list the bridge blocks and layers found in IN.onnx, and convert nothing")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="no progress and no tables")
    loudness.add_argument(
        "-v", "--verbose", action="store_true", help="list every operator that stays float; tracebacks of unexpected errors"
    )
    parser.add_argument("--version", action="version", version=f"bridgequant {__version__}")
    return parser


def parse_flags(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UsageError: it makes no sense.
        SystemExit: ``--help`` or ``--version`` was asked for and answered.
    """
    flags = _parser().parse_args(words)
    paths = {"IN.onnx": flags.source, "OUT.onnx": flags.output}
    missing = [name for name, path in paths.items() if path is None and not (flags.explain and name == "OUT.onnx")]
    if missing:
        raise UsageError(f"the following arguments are required: {', '.join(missing)}", hint="see --help")
    if flags.output is not None and flags.explain:
        raise UsageError("nothing is converted and no model written", where="--explain with OUT.onnx", hint="leave one of the two out")
    if flags.plan_in is not None and flags.method:
        raise UsageError("a plan that is read needs no method", where="--method with --plan-in", hint="give one of the two")
    if flags.plan_in is not None and flags.placement is not None:
        raise UsageError("a plan that is read is placed already", where="--placement with --plan-in", hint="give one of the two")
    if flags.full and (flags.plan_in is not None or flags.placement is not None):
        where = f"--full with {'--plan-in' if flags.plan_in is not None else '--placement'}"
        raise UsageError("with everything quantized, nothing is left to place", where=where, hint="give one of the two")
    return flags
