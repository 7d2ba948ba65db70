"""Lines that a recogniser reads right, in percent, as one number: ``python -m tools.demo.score [--lines N] MODEL.onnx``.

It is what ``--metric`` wants of a command: the model's path comes last, and the number is all that is printed.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import onnx

from converter.cli.command import Parser, exit_code, print_line
from converter.load.files import check_input
from converter.load.metadata import TARGET
from converter.runtime.session import open_session, run_session
from converter.targets import TARGETS
from tools.demo.recogniser import alphabet, character_accuracy, exact_lines, greedy_decode
from tools.demo.text_lines import TEST_SEED, pixels, render_lines

__all__ = ["main"]

_PARTS = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.demo.score", description="Lines that a recogniser reads right, in percent.")
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL.onnx")
    add("--lines", type=int, default=300, metavar="N", help="rendered lines to read (default 300)")
    add("--part", default="all", choices=tuple(_PARTS), help="of the lines, by their places")
    add("--characters", action="store_true", help="count characters instead of lines")
    add("--threads", type=int, default=1, metavar="N", help="of the runtime (default 1)")
    flags = parser.parse_args(arguments)
    parser.check_least(flags, lines=2, threads=0)
    check_input(flags.model)
    lines, characters = render_lines(flags.lines, TEST_SEED)[_PARTS[flags.part]], alphabet(flags.model)
    made_for = {p.key: p.value for p in onnx.load(flags.model).metadata_props}.get(TARGET, "")
    settings = TARGETS[made_for].session_settings.get(platform.machine(), {}) if made_for in TARGETS else {}
    session = open_session(flags.model, settings=settings, threads=flags.threads)
    texts: list[str] = []
    for line in lines:
        (probabilities,) = run_session(session, {"x": pixels(line)[None]}).values()
        texts += greedy_decode(probabilities, characters)
    truths = [line.text for line in lines]
    print_line(f"{(character_accuracy if flags.characters else exact_lines)(truths, texts):.6f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
