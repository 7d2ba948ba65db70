"""The command line: what is printed where, and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from converter.cli.allocator import share_heap
from converter.cli.command import INTERRUPTED, unexpected
from converter.cli.completion import words_of_shell
from converter.cli.flags import parse_flags, read_options
from converter.cli.interruption import Interruption
from converter.cli.subcommands import OF_CONVERSION, SUBCOMMANDS, run_subcommand, subcommand
from converter.errors import ConverterError, UsageError
from converter.load.files import check_input, check_outputs, meant_path
from converter.progress import Progress
from converter.system.text_files import check_text_file

if TYPE_CHECKING:
    from rich.console import RenderableType

    from converter.options import Options
    from converter.report import Report

__all__ = ["main"]

Result = tuple[str, ConverterError | None]
"""What goes to stdout, and how the command ends behind it."""

_WIDTH = 100  # of tables that go to a file
_PIPE_WIDTH = 240  # of lists that go to other programs, which want one line an entry


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    words = words_of_shell([*OF_CONVERSION, *SUBCOMMANDS])
    if words is None:
        words = sys.argv[1:] if arguments is None else arguments
    other = subcommand(words)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # nobody asked for a model's conversion to be reported to anyone
    try:
        if other is not None:
            return run_subcommand(*other)
        flags = parse_flags(words)
    except ConverterError as error:
        return _fail(error)
    except SystemExit as stop:  # --help and --version
        return stop.code if isinstance(stop.code, int) else 0
    before = _identity(flags.output)
    if arguments is None:  # a process of our own
        share_heap()
    # only such a one may be ended from within a signal handler
    with Interruption(functools.partial(_leave, flags.output) if arguments is None else None) as interruption:
        try:
            _run(flags, interruption)
            return 0
        except ConverterError as error:
            if interruption.received:  # some libraries wrap what the signal raised
                return _interrupted(flags.output, before)
            return _fail(error)
        except KeyboardInterrupt:
            return _interrupted(flags.output, before)
        except MemoryError:
            what = "there is not enough memory for this model and these samples"
            return _fail(ConverterError(what, hint="give fewer --samples, a smaller --input-shape, or run it on a larger machine"))
        except ModuleNotFoundError as error:
            hint = "in a checkout: run make demo once, then .venv/bin/python convert.py; elsewhere: pip install bridgequant"
            return _fail(UsageError(f"the package '{error.name}' is not installed for this Python", where=sys.executable, hint=hint))
        except Exception as error:
            if interruption.received:  # as above
                return _interrupted(flags.output, before)
            if flags.verbose:
                traceback.print_exc()
            hint = "report it, with the traceback above" if flags.verbose else "run again with -v for the traceback, and report it"
            return _fail(ConverterError(unexpected(error), hint=hint))


def _run(flags: argparse.Namespace, interruption: Interruption) -> None:
    check_input(flags.source)
    if not flags.explain:
        check_outputs({"OUT": flags.output}, {"IN": flags.source})
    with interruption.deferred():  # as everywhere where libraries are loaded
        options = read_options(flags)
        _check_paths(options)
        from converter.cli.terminal import watch
    with watch(quiet=flags.quiet) as plain:
        progress = _watchful(plain, interruption)
        progress.stage("start")
        text, missed = (_explained if flags.explain else _converted)(flags, options, progress, interruption)
    if text:
        _print(text)
    if missed is not None:
        raise missed


def _check_paths(options: Options) -> None:
    """Refuse what a look from outside tells about other files, before libraries are loaded for seconds.

    Raises:
        CalibrationError, UsageError: see what is called.
    """
    from converter.calibration.calibration_files import check_calibration_path

    if isinstance(options.calib, Path):
        check_calibration_path(options.calib)
    if options.evaluation is not None:
        check_calibration_path(options.evaluation)
    if options.plan_in is not None:
        try:
            check_text_file(options.plan_in)
        except OSError as error:
            what = f"the plan cannot be read: {error.strerror}"
            hint = meant_path(options.plan_in) or "check the path"
            raise UsageError(what, where=f"--plan-in {options.plan_in}", hint=hint) from None


def _converted(flags: argparse.Namespace, options: Options, progress: Progress, interruption: Interruption) -> Result:
    """Convert."""
    with interruption.deferred():
        import onnxruntime  # noqa: F401
    with interruption.deferred():
        import torch  # noqa: F401
    with interruption.deferred():
        from converter.budget.records import budget_missed
        from converter.pipeline import convert
    if "target" not in flags and "plan_in" not in flags:
        progress.note(_assumed_target(options))
    json_out = None if flags.json == "-" else flags.json
    report = convert(
        flags.source,
        flags.output,
        options,
        dry_run=flags.dry_run,
        progress=progress,
        plan_out=flags.plan_out,
        json_out=json_out,
        report_out=flags.report,
        ort_out=flags.output.with_suffix(".ort") if flags.ort else None,
    )
    missed = None
    if report.budget is not None and not report.budget.met:
        missed = budget_missed(report.budget, f"the best found was written to {flags.output}", "see the curve in the report")
    return _told(flags, report), missed


def _told(flags: argparse.Namespace, report: Report) -> str:
    """What goes to stdout."""
    from converter.cli.report_tables import float_operator_lines, report_tables
    from converter.report import report_json

    if flags.json == "-":
        return report_json(report)
    if flags.quiet:
        return ""
    lines = ["", *float_operator_lines(report)] if flags.verbose else []
    return _table(report_tables(report), _WIDTH) + "".join(f"{line}\n" for line in lines)


def _assumed_target(options: Options) -> str:
    """For which machines the file is if nobody has said so, and the flag for others."""
    from converter.targets import find_target

    machines = find_target(options.target).description.partition(", int8 ")[0]
    return f"no --target: the file is for {options.target}, {machines}; for a PC give --target x86, for a browser --target web"


def _explained(flags: argparse.Namespace, options: Options, progress: Progress, interruption: Interruption) -> Result:
    with interruption.deferred():
        from converter.cli.explain import explain, explained_tables
    return _table(explained_tables(explain(flags.source, options, progress=progress)), _PIPE_WIDTH), None


def _table(table: RenderableType, width: int) -> str:
    """As wide as the terminal, or of the given width where stdout is none."""
    from converter.cli.report_tables import render

    terminal = sys.stdout is not None and sys.stdout.isatty()
    return render(table, shutil.get_terminal_size((_WIDTH, 24)).columns if terminal else width, terminal=terminal)


def _watchful(progress: Progress, interruption: Interruption) -> Progress:
    """The same watcher, which also ends the run if a library has swallowed an interruption."""

    def stage(name: str) -> None:
        interruption.check()
        progress.stage(name)

    def step(done: int, total: int) -> None:
        interruption.check()
        progress.step(done, total)

    return replace(progress, stage=stage, step=step)


def _print(text: str) -> None:
    """Write to stdout.

    Raises:
        ConverterError: it cannot be written; not if its reader has gone, which is the reader's choice.
    """
    if sys.stdout is None:
        return
    try:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # keep the interpreter's last flush quiet, where stdout is a file at all
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            hint = "redirect stdout elsewhere; files were written"
            raise ConverterError(f"the result cannot be printed: {error.strerror}", where="stdout", hint=hint) from error


def _fail(error: ConverterError) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"{error}\n")
    return error.exit_code


def _leave(output: Path | None) -> NoReturn:
    """End the process while libraries are being loaded: nothing has been written and nothing needs tidying up."""
    show_cursor = "\x1b[?25h\r\x1b[K" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        what = "" if output is None else f"; {output} was not written"
        os.write(2, f"{show_cursor}interrupted{what}\n".encode(errors="backslashreplace"))
    os._exit(INTERRUPTED)


def _identity(path: Path | None) -> tuple[int, int] | None:
    """What changes when a file is replaced."""
    try:
        status = os.stat(os.devnull if path is None else path)
    except (OSError, ValueError):  # no such file, or no name of one
        return None
    return status.st_ino, status.st_mtime_ns


def _interrupted(output: Path | None, before: tuple[int, int] | None) -> int:
    written = _identity(output) not in (None, before)
    what = "" if output is None else f"; {output} was {'complete and is written' if written else 'not written'}"
    if sys.stderr is not None:
        sys.stderr.write(f"interrupted{what}\n")
    return INTERRUPTED
