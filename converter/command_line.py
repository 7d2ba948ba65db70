"""The command line: flags, progress, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from converter import __version__
from converter.errors import ConverterError, UsageError

__all__ = ["main"]

_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        flag, _, what = message.partition(": ") if message.startswith("argument ") else ("", "", message)
        raise UsageError(what, where=flag.removeprefix("argument "), hint=f"see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bridgequant",
        usage="%(prog)s IN.onnx OUT.onnx [options]",
        description="Convert a float ONNX hybrid vision transformer to an int8 QDQ model for ONNX Runtime.",
        epilog="Exit codes: 0 written and verified, 1 unexpected, 2 usage, 3 model, 4 calibration data, 5 verification failed, "
        "6 a requested bound missed, 130 interrupted.",
    )
    add = parser.add_argument
    add("source", metavar="IN.onnx", type=Path, help="float model")
    add("output", metavar="OUT.onnx", type=Path, help="int8 model; replaced if it exists")
    add("--calib", type=Path, metavar="PATH", help="calibration data: folder or zip of images, .npz, .npy (default: built-in synthetic images)")
    add("--samples", type=int, default=32, metavar="N", help="calibration samples (default 32)")
    add("--preprocess", metavar="SPEC", help="images: imagenet, unit, symmetric, or mean=..;std=.., with ;resize=stretch|crop|pad")
    add("--input-shape", action="append", default=[], metavar="NAME:DIMS", help="sizes of symbolic dimensions, as x:1,3,48,320; repeatable")
    add("--method", metavar="NAME", help="planning method: minmax, percentile, mse (default: mse)")
    add("--bits", default="W8A8", metavar="WxAy", help="bits of weights and activations (default W8A8)")
    add("--target", default="arm64", metavar="NAME", help="integer kernels to write for: arm64, x86 (default arm64)")
    add("--exclude", action="append", default=[], metavar="PATTERN", help="operators that stay float, by name glob or type; repeatable")
    add("--min-sqnr", type=float, metavar="DB", help="fail (exit 6) if an output has a lower SQNR against float")
    add("--seed", type=int, default=0, help="of all random choices (default 0)")
    add("--threads", type=int, default=0, help="of the runtime; 0 lets it choose (default)")
    add("--json", metavar="FILE", help="write the report as JSON; - is stdout")
    add("--plan-out", type=Path, metavar="FILE", help="write the plan as JSON")
    add("--plan-in", type=Path, metavar="FILE", help="use this plan instead of making one")
    add("--dry-run", action="store_true", help="stop after planning: write no model")
    add("-q", "--quiet", action="store_true", help="no progress and no tables")
    add("-v", "--verbose", action="store_true", help="list every operator that stays float, and tracebacks of unexpected errors")
    add("--version", action="version", version=f"bridgequant {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "-v" in words or "--verbose" in words
    try:
        with _interruptible():
            return _run(_parser().parse_args(words))
    except ConverterError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was written\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # whoever read our output has gone; point stdout at nothing so that the interpreter's last flush is quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if verbose:
            raise
        sys.stderr.write(f"error: unexpected {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}\n")
        sys.stderr.write("  do: run again with -v for the traceback, and report it\n")
        return 1


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end the run like Ctrl-C, so that temporary files are removed."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: signals are the caller's business
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(flags: argparse.Namespace) -> int:
    from rich.console import Console

    from converter.methods import DEFAULT_METHOD
    from converter.options import Options
    from converter.pipeline import convert, write_atomically
    from converter.plan import plan_to_json
    from converter.preprocess import parse_preprocess
    from converter.report import report_json, report_tables
    from converter.shapes import parse_input_shape
    from converter.terminal import watch

    if flags.plan_in is not None and flags.method is not None:
        raise UsageError("a plan that is read needs no method", where="--method with --plan-in", hint="give one of the two")
    options = Options(
        calib=flags.calib,
        samples=flags.samples,
        preprocess=parse_preprocess(flags.preprocess) if flags.preprocess is not None else None,
        input_shapes=dict(parse_input_shape(text) for text in flags.input_shape),
        method=flags.method or DEFAULT_METHOD,
        bits=flags.bits,
        target=flags.target,
        exclude=tuple(flags.exclude),
        min_sqnr=flags.min_sqnr,
        seed=flags.seed,
        threads=flags.threads,
        plan_in=flags.plan_in,
    )
    for path in (flags.plan_out, Path(flags.json) if flags.json not in (None, "-") else None):
        if path is not None and not path.resolve().parent.is_dir():
            raise UsageError("the folder does not exist", where=str(path), hint="create it first")
    with watch(quiet=flags.quiet) as progress:
        report = convert(flags.source, flags.output, options, dry_run=flags.dry_run, progress=progress)
    if flags.plan_out is not None:
        write_atomically(flags.plan_out, plan_to_json(report.plan).encode())
    if flags.json == "-":
        sys.stdout.write(report_json(report))
    elif flags.json is not None:
        write_atomically(Path(flags.json), report_json(report).encode())
    if not flags.quiet and flags.json != "-":
        console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 120)
        console.print(report_tables(report))
        if flags.verbose and report.verdict is not None:
            for op in report.verdict.census.float_ops:
                console.print(f"float: {op.name} ({op.op_type}, {op.macs / 1e6:.2f} M): {op.reason}", markup=False, highlight=False)
    sys.stdout.flush()
    return 0
