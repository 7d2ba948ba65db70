"""A metric that is a program: it gets the path of a model as its last argument and prints a number."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import onnx

from converter.errors import UsageError
from converter.graph.weight_files import in_memory
from converter.load.files import temporary_folder

__all__ = ["check_command", "score_by_command"]

_LONGEST = 200
"""Characters of what a program says that are repeated."""


def check_command(text: str) -> list[str]:
    """The words of a command whose program there is.

    Raises:
        UsageError: it cannot be read as words, or there is no such program.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"the command cannot be read: {error}", where=f"--metric {text}", hint="check its quotes") from None
    if not words or shutil.which(words[0]) is None:
        what = f"'{words[0]}' is no metric, and no program that can be run" if words else "the command is empty"
        hint = "give top1, agreement, sqnr, or a program that prints a number for the model whose path is its last argument"
        raise UsageError(what, where="--metric", hint=hint)
    return words


def score_by_command(words: Sequence[str], model: onnx.ModelProto | Path) -> float:
    """Run the command on a model; what it prints last is the score.

    Args:
        words: program and arguments.
        model: a file, or a model that is written to a temporary one.

    Returns:
        any number; infinity and NaN too.

    Raises:
        UsageError: the program fails, or its last line is no number.
    """
    if isinstance(model, Path):
        return _score(words, model)
    content = in_memory(model).SerializeToString(deterministic=True)
    with temporary_folder(len(content)) as folder:
        path = folder / "model.onnx"
        path.write_bytes(content)
        return _score(words, path)


def _score(words: Sequence[str], path: Path) -> float:
    where = f"--metric {shlex.join(words)}"
    try:
        ended = subprocess.run([*words, str(path)], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise UsageError(f"the command cannot be run: {error.strerror}", where=where, hint="check the command") from error
    out, err = (stream.decode(errors="replace").strip().splitlines() for stream in (ended.stdout, ended.stderr))
    if ended.returncode:
        said = f": {(err or out)[-1][:_LONGEST]}" if err or out else ", without a word"
        hint = "run it by hand with the path of a model behind it"
        raise UsageError(f"the command ended with exit code {ended.returncode}{said}", where=where, hint=hint)
    try:
        return float(out[-1])
    except (IndexError, ValueError):
        said = f"'{out[-1][:_LONGEST]}'" if out else "nothing"
        hint = "let the last line that it prints be the score and nothing else; more is better"
        raise UsageError(f"the command printed {said} where a number was expected", where=where, hint=hint) from None
