"""Every reference checkpoint through export, conversion and validation: ``make validate [DATA=ZIP] [CALIB=ZIP]``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from converter.cli.command import INTERRUPTED, Parser, exit_code, print_line
from converter.errors import BoundMissedError, CalibrationError, ConverterError, ModelError, UsageError, VerificationError
from converter.options import Options
from converter.pipeline import convert
from models.export import build, export_model
from runtime_tests.command_line import main as validate
from runtime_tests.emulation.environment import environment
from runtime_tests.emulation.setup import missing_steps

__all__ = ["CHECKPOINTS", "GATES", "main", "raise_failed", "validation_flags"]

CHECKPOINTS = Path(__file__).resolve().parents[1] / "models" / "checkpoints"
GATES = Path(__file__).resolve().parent / "gates"
CORES = ("cortex-a53", "cortex-a76")


def main(arguments: Sequence[str] | None = None) -> int:
    """Validate all that are asked for, also behind one that fails; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def validation_flags(name: str, folder: Path, *, data: Path | None, limit: int | None, arm64: bool) -> list[str]:
    """What ``python -m runtime_tests`` is called with for a checkpoint: the gates of what can be measured, its own last."""
    flags = [str(folder / f"{name}.onnx"), str(folder / f"{name}_int8.onnx"), "--plan-in", str(folder / f"{name}_plan.json")]
    flags += ["--json", str(folder / f"{name}.json"), "--junit", str(folder / f"{name}.xml"), *_gates(name, "model")]
    if data is not None:
        flags += ["--data", str(data), *_gates(name, "accuracy")]
        flags += ["--limit", str(limit)] if limit is not None else []
    if arm64:
        flags += ["--arm64", *(word for core in CORES for word in ("--core", core)), *_gates(name, "arm64")]
    return flags


def _gates(name: str, kind: str) -> list[str]:
    """The gates of all checkpoints, and behind them those in which this one differs."""
    own = GATES / name / f"{kind}.toml"
    return ["--gates", str(GATES / f"{kind}.toml"), *(["--gates", str(own)] if own.exists() else [])]


def _run(arguments: Sequence[str] | None) -> None:
    known = sorted(path.stem for path in CHECKPOINTS.glob("*.safetensors"))
    parser = Parser(prog="python -m runtime_tests.validate", description="Convert and validate the reference checkpoints.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of checkpoints (default: {', '.join(known)})")
    parser.add_argument("--data", type=Path, metavar="PATH", help="labelled test images; without them accuracy is not measured")
    parser.add_argument("--calib", type=Path, metavar="PATH", help="images to calibrate on (default: built-in synthetic ones)")
    parser.add_argument("--limit", type=int, metavar="N", help="classify a choice of N images")
    parser.add_argument("--out", type=Path, default=Path("build/validate"), help="folder for models and results (default build/validate)")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in known:
            raise UsageError(f"there is no checkpoint '{name}'", where=str(CHECKPOINTS), hint=f"choose from {', '.join(known)}")
    for flag, path in (("--data", options.data), ("--calib", options.calib)):
        if path is not None and not path.exists():
            raise UsageError("there are no images at this path", where=f"{flag} {path}", hint="check the spelling")
    if options.data is None:
        print_line("accuracy is not measured: give labelled images, as in make validate DATA=cifar10_test.zip")
    arm64 = not missing_steps(environment())
    if not arm64:
        print_line("ARM64 instructions are not counted: run make arm64 first")
    options.out.mkdir(parents=True, exist_ok=True)
    codes: dict[str, int] = {}
    for name in options.names or known:
        codes[name] = _validated(name, options, arm64=arm64)
        if codes[name] == INTERRUPTED:
            raise KeyboardInterrupt
    raise_failed(codes, options.out)


def _validated(name: str, options: argparse.Namespace, *, arm64: bool) -> int:
    """Exit code of converting and validating one checkpoint; what went wrong has been printed."""
    for kind in ("json", "xml"):  # of an earlier run
        (options.out / f"{name}.{kind}").unlink(missing_ok=True)

    def whole() -> None:
        _convert(name, options.out, options.calib)

    flags = validation_flags(name, options.out, data=options.data, limit=options.limit, arm64=arm64)
    return exit_code(whole) or validate(flags)


def raise_failed(codes: Mapping[str, int], folder: Path) -> None:
    """Raise what the gravest exit code stands for: a missed gate is the least, since the model runs as it should.

    Raises:
        ConverterError: there is a code other than 0.
    """
    failed = {name: code for name, code in codes.items() if code}
    if not failed:
        return
    what = f"not all checkpoints passed: {', '.join(f'{name} (exit {code})' for name, code in failed.items())}"
    kinds = {kind.exit_code: kind for kind in (UsageError, ModelError, CalibrationError, VerificationError, BoundMissedError)}
    gravest = min(failed.values())
    raise kinds.get(gravest, ConverterError)(what, where=str(folder), hint="see above for each")


def _convert(name: str, folder: Path, calib: Path | None) -> None:
    """Export a checkpoint, and convert it with every option at its default."""
    source = folder / f"{name}.onnx"
    source.write_bytes(export_model(build(name, checkpoint=CHECKPOINTS / f"{name}.safetensors")))
    convert(source, folder / f"{name}_int8.onnx", Options(calib=calib), plan_out=folder / f"{name}_plan.json")


if __name__ == "__main__":
    raise SystemExit(main())
