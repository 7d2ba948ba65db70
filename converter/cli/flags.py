"""The flags of the command line. Loads nothing heavy, so that ``--help`` and mistakes are answered at once.

What :class:`converter.options.Options` holds is read from there: names, texts, types and defaults.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from converter import __version__
from converter.cli.completion import answer_shell, propose_commands
from converter.cli.subcommands import OF_CONVERSION, SUBCOMMANDS
from converter.errors import UsageError
from converter.methods.search_parts import SearchParts
from converter.options import Options
from converter.sensitivity.loss_names import parse_losses

if TYPE_CHECKING:
    from converter.calibration.preprocess import Preprocess

__all__ = ["parse_flags", "read_options"]

_UNKNOWN = "unrecognized arguments: "

_USUAL = ("calib", "samples", "preprocess", "input_shapes", "target", "bits", "exclude", "min_sqnr", "report", "json")
"""The ten options that ``--help`` explains; ``--help all`` explains every one."""

_OF_EXPLAIN = {
    **dict.fromkeys(("source", "samples", "preprocess", "input_shapes", "target", "seed", "threads")),
    "calib": "folder or zip of images, .npz, .npy (default: none, and then no ranges)",
    "quiet": "no progress",
    "verbose": "tracebacks of unexpected errors",
    "help": "show this help message and exit",
}
"""What the command explain heeds, and what it means there if that is not what it means for a conversion."""

_WIDTH = 78
"""Of what the help says below the options; argparse leaves two columns of a terminal free."""

_SEE_HELP = "see --help all"

_EMPTY = "the path is empty"

_HINTS = {
    "whole number": f"give digits alone, such as 8; {_SEE_HELP}",
    "number": f"give digits alone, such as 0.5; {_SEE_HELP}",
    _EMPTY: "name a file or a folder; in a script, check its variable",
}
"""What to do, by how a complaint ends."""

_PICTURES = frozenset([".bmp", ".jpeg", ".jpg", ".png", ".webp"])
"""Suffixes of what a shell makes of a pattern such as ``images/*``."""

_PATHS = "IN.onnx and OUT.onnx, which need no flag"

_MEANT = {
    **dict.fromkeys(("-o", "-i", "--out", "--output", "--input", "--model", "--in"), _PATHS),
    **dict.fromkeys(("--data", "--dataset", "--images", "--calibration-data", "--calibration-data-path"), "--calib"),
    **dict.fromkeys(("--device", "--platform", "--machine", "--arch"), "--target"),
    **dict.fromkeys(("--skip", "--ignore", "--nodes-to-exclude"), "--exclude"),
    **dict.fromkeys(("--html", "--inspect"), "--report"),
    **dict.fromkeys(("--size", "--shape", "--input-shapes"), "--input-shape"),
    **dict.fromkeys(("--mean", "--std"), "--preprocess"),
    **dict.fromkeys(("--calibration-method", "--calibrate-method"), "--method"),
    **dict.fromkeys(("--activation-type", "--weight-type", "--quant-format"), "--target, which decides about types"),
    **dict.fromkeys(("--op-types-to-quantize", "--nodes-to-quantize"), "--exclude, which names what stays float"),
}
"""What other tools call flags, and what they are here."""

_NEEDLESS = {
    "--per-channel": "weights have a scale for each channel anyway",
    "--reduce-range": "--target knows how many bits weights can have",
}
"""Flags of other tools that nobody needs here, and why."""

_OTHER_WORDS = {
    **dict.fromkeys(("quantize", "quantise", "optimize"), "convert"),
    **dict.fromkeys(("verify", "check", "test"), "validate"),
    **dict.fromkeys(("inspect", "info", "analyze"), "explain"),
    **dict.fromkeys(("diff",), "compare"),
    **dict.fromkeys(("accuracy", "score"), "evaluate"),
}
"""The same of commands."""

_EXIT_CODES = """Exit codes: 0 written and verified, 1 unexpected, 2 usage, 3 model,
4 calibration data, 5 verification failed, 6 a requested bound missed,
130 interrupted. Nothing is written unless the code is 0."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if message.startswith(_UNKNOWN):
            raise self._unknown(message.removeprefix(_UNKNOWN).split()[0])
        flag, _, what = message.partition(": ") if message.startswith("argument ") else ("", "", message)
        hint = next((hint for ending, hint in _HINTS.items() if what.endswith(ending)), _SEE_HELP)
        raise UsageError(what, where=flag.removeprefix("argument "), hint=hint)

    def _unknown(self, word: str) -> UsageError:
        flags = [f for action in self._actions for f in action.option_strings]
        flag = word.split("=")[0].replace("_", "-")
        near = [_MEANT[flag]] if flag in _MEANT else difflib.get_close_matches(flag, flags, n=1)
        if flag in _NEEDLESS:
            return UsageError(f"there is no flag '{word}'", hint=f"leave it out: {_NEEDLESS[flag]}")
        if not word.startswith("-"):
            if Path(word).suffix.lower() in _PICTURES:
                return UsageError(f"'{word}' is one path too many", hint=f"give the folder of the pictures: --calib {Path(word).parent}")
            hint = "give IN.onnx and OUT.onnx; a flag takes one value, and is repeated for more"
            return UsageError(f"'{word}' is one path too many", hint=hint)
        return UsageError(f"there is no flag '{word}'", hint=f"did you mean {near[0]}? {_SEE_HELP}" if near else _SEE_HELP)


class _Help(argparse.Action):
    """``--help``, or ``--help all``."""

    def __call__(self, parser: argparse.ArgumentParser, _: object, values: object, option_string: str | None = None) -> NoReturn:
        _parser(usual_only=values != "all").print_help()
        parser.exit()


def _help_of_explain() -> str:
    """What ``explain --help`` says."""
    parser = _parser()
    parser.prog, parser.usage, parser.epilog = "bridgequant explain", "%(prog)s IN.onnx [options]", None
    parser.description = "List the bridge blocks and layers of a float model, and with --calib what each layer reads and writes."
    for action in parser._actions:
        action.help = (_OF_EXPLAIN[action.dest] or action.help) if action.dest in _OF_EXPLAIN else argparse.SUPPRESS
    return parser.format_help()


def _number(kind: Callable[[str], float], what: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a {what}") from None

    return read


def _path(text: str) -> Path:
    """A path; an empty one would be the folder at hand, which nobody means who leaves a variable unset."""
    if not text:
        raise argparse.ArgumentTypeError(_EMPTY)
    return Path(text)


_READERS = {int: _number(int, "whole number"), float: _number(float, "number"), Path: _path}


def _add_field(groups: Mapping[str, argparse._ArgumentGroup], field: Field[Any]) -> None:
    """Make a flag of a field; it is not in the result unless it was given, so that the record's default counts."""
    known = field.metadata["flag"]
    default = field.default if field.default_factory is MISSING else field.default_factory()
    text, kind = known["text"], int if isinstance(default, int) else known["kind"]
    how: dict[str, Any] = {"metavar": known["metavar"], "type": _READERS.get(kind, kind)}
    if isinstance(default, bool):
        how = {"action": argparse.BooleanOptionalAction if default else "store_true"}
        text += " (default: on)" if default else ""
    elif known["many"]:
        how["action"] = "append"
        text += "; repeatable"
    elif default is not None:
        text += f" (default: {default})"
    name = known["name"] or f"--{field.name.replace('_', '-')}"
    groups[known["group"]].add_argument(name, dest=field.name, default=argparse.SUPPRESS, help=text, **how)


def _flag_fields() -> list[Field[Any]]:
    """Fields that are flags; those of the search's parts stand where the options have the parts."""
    nested = [fields(SearchParts) if field.name == "parts" else (field,) for field in fields(Options)]
    return [field for group in nested for field in group if "flag" in field.metadata]


def _parser(*, usual_only: bool = False) -> argparse.ArgumentParser:
    """The parser of a conversion's command line.

    Args:
        usual_only: its help explains ten options, and names the others.
    """
    parser = _Parser(
        prog="bridgequant",
        usage="%(prog)s IN.onnx OUT.onnx [options]\n       %(prog)s COMMAND --help",
        description="Convert a float ONNX hybrid vision transformer to an int8 QDQ model for ONNX Runtime.",
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=28),
        allow_abbrev=False,
        add_help=False,
    )
    add = parser.add_argument
    propose_commands(add("source", metavar="IN.onnx", type=_path, nargs="?", help="float model"), [*OF_CONVERSION, *SUBCOMMANDS])
    add("output", metavar="OUT.onnx", type=_path, nargs="?", help="int8 model; replaced if it exists")
    titles = ("calibration", "conversion", "accuracy budget", "plan and report", "other")
    groups = {title: parser.add_argument_group(title) for title in titles}
    for field in _flag_fields():
        _add_field(groups, field)
    add = groups["plan and report"].add_argument
    add("--plan-out", type=_path, metavar="FILE", help="write the plan as JSON")
    add("--json", metavar="FILE", help="write the report as JSON; - is stdout")
    add("--report", type=_path, metavar="FILE.html", help="write the report as a page for a browser")
    add("--ort", action="store_true", help="write OUT.ort too: ONNX Runtime's mobile format, for the target")
    add("--dry-run", action="store_true", help="stop after planning: write no model")
    add("--explain", action="store_true", help="as the command explain: take no OUT.onnx, and convert nothing")
    loudness = groups["other"].add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="no progress and no tables")
    loudness.add_argument(
        "-v", "--verbose", action="store_true", help="list every operator that stays float; tracebacks of unexpected errors"
    )
    add = groups["other"].add_argument
    add("--version", action="version", version=f"bridgequant {__version__}", help="print the version")
    add("-h", "--help", action=_Help, nargs="?", metavar="all", default=argparse.SUPPRESS, help="ten options; with 'all', every one")
    others = _hide_all_but_usual(groups) if usual_only else [_EXIT_CODES]
    parser.epilog = "\n".join([*_commands(), "", *others])
    return parser


def _hide_all_but_usual(groups: Mapping[str, argparse._ArgumentGroup]) -> list[str]:
    """Leave other flags out of the help; returns lines that name them, group by group."""
    lines = ["more options, explained by --help all:"]
    for title, group in groups.items():
        hidden = [action for action in group._group_actions if action.dest not in _USUAL]
        names = ", ".join(action.option_strings[-1 if title == "other" else 0] for action in hidden)
        lines += textwrap.wrap(f"{title}: {names}", _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
        for action in hidden:
            action.help = argparse.SUPPRESS
    return lines


def _commands() -> list[str]:
    texts = {**OF_CONVERSION, **{word: command.text for word, command in SUBCOMMANDS.items()}}
    return ["commands:", *(f"  {word:10} {text}" for word, text in texts.items())]


def parse_flags(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line; of the options, the result holds those that were given.

    Raises:
        UsageError: it makes no sense.
        SystemExit: ``--help`` or ``--version`` was asked for and answered.
    """
    if words and words[0] == "explain" and {"-h", "--help"} & set(words):
        print(_help_of_explain(), end="")
        raise SystemExit(0)
    words = _without_command(words)
    parser = _parser()
    answer_shell(parser)
    flags = parser.parse_args(words)
    paths = {"IN.onnx": flags.source, "OUT.onnx": flags.output}
    missing = [name for name, path in paths.items() if path is None and not (flags.explain and name == "OUT.onnx")]
    if missing:
        hint = "write bridgequant IN.onnx OUT.onnx; see --help"
        raise UsageError(f"the following arguments are required: {', '.join(missing)}", hint=hint)
    if flags.output is not None and flags.explain:
        raise UsageError("nothing is converted and no model written", where="--explain with OUT.onnx", hint="leave one of the two out")
    for written in ("json", "report", "plan_out"):
        if flags.explain and getattr(flags, written) is not None:
            flag = f"--{written.replace('_', '-')}"
            raise UsageError("what is explained is printed, not written", where=f"{flag} with explain", hint="redirect stdout instead")
    if flags.ort and (flags.explain or flags.dry_run):
        where = f"--ort with {'explain' if flags.explain else '--dry-run'}"
        raise UsageError("no model is written, in no format", where=where, hint="leave one of the two out")
    if flags.ort and flags.output.exists() and not flags.output.is_file():
        raise UsageError("only beside a file can another one be written", where=f"--ort with {flags.output}", hint="name a file")
    for one, other, what in (
        ("method", "plan_in", "a plan that is read needs no method"),
        ("placement", "plan_in", "a plan that is read is placed already"),
        ("prefer", "plan_in", "a plan that is read says how weights are stored"),
        ("full", "plan_in", "with everything quantized, nothing is left to place"),
        ("full", "placement", "with everything quantized, nothing is left to place"),
    ):
        if one in flags and other in flags:
            raise UsageError(what, where=f"--{one} with --{other.replace('_', '-')}", hint="give one of the two")
    return flags


def _without_command(words: Sequence[str]) -> Sequence[str]:
    """The flags of a conversion, whose first word may say which of its commands is meant.

    Raises:
        UsageError: it is a command that there is not.
    """
    first = words[0] if words else ""
    if first in OF_CONVERSION:
        return [*words[1:], *(["--explain"] if first == "explain" else [])]
    if first in ("help", "version"):
        return [f"--{first}", *words[1:]]
    if first.startswith("-"):
        return words
    commands = [*OF_CONVERSION, *SUBCOMMANDS]
    near = [_OTHER_WORDS[first]] if first in _OTHER_WORDS else difflib.get_close_matches(first, commands, n=1)
    if near and not Path(first).exists():
        raise UsageError(f"'{first}' is neither a file nor a command", hint=f"did you mean {near[0]}? see --help")
    return words


def read_options(flags: argparse.Namespace) -> Options:
    """The options that were given, as values; the others have their defaults.

    Raises:
        UsageError: a value makes no sense.
    """
    given = vars(flags)
    readers = {"preprocess": _preprocess, "input_shapes": _input_shapes, "losses": parse_losses, "exclude": tuple}
    parts = SearchParts(**{field.name: given[field.name] for field in fields(SearchParts) if field.name in given})
    values = {field.name: given[field.name] for field in fields(Options) if field.name in given}
    values |= {name: read(values[name]) for name, read in readers.items() if name in values}
    return Options(**values, parts=parts)


def _preprocess(text: str) -> Preprocess:
    from converter.calibration.preprocess import parse_preprocess

    return parse_preprocess(text)


def _input_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    from converter.calibration.input_shapes import parse_input_shapes  # which loads the runtime

    return parse_input_shapes(texts)
