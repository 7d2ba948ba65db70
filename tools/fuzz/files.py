"""Conversions that are disturbed while they read and write files: killed, out of disk, or two at once.

Whatever happens, the output is the old one, the new one, or was never there; and the next conversion leaves nothing else beside it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random

import onnx

from converter.runtime.session import open_session
from converter.testing.models import hybrid_model
from tools.fuzz.outcome import Outcome
from tools.processes import Ended, run_limited

__all__ = ["DISTURBANCES", "run"]

_OLD = b"the output of an earlier run"
_FLAGS = ("--method", "minmax", "--samples", "2", "--threads", "1", "--quiet")
_SECONDS = 60.0

_KILLED = """
import os, signal, sys
folder, left = sys.argv.pop(1), int(sys.argv.pop(1))
def seen(event, arguments):
    global left
    if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(arguments[0]).startswith(folder):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(seen)
from converter.cli.main import main
sys.exit(main())
"""
"""Ends itself as it is about to open, rename or remove the n-th file in the folder."""

_LIMITED = """
import resource, sys
limit = int(sys.argv.pop(1))
from converter.cli.main import main
import converter.pipeline
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main())
"""
"""Writes no file beyond so many bytes."""


def run(seed: int, folder: Path) -> Outcome:
    """One disturbed conversion and an undisturbed one after it; the folder is empty."""
    random = Random(seed)
    home, temporary = folder / "home", folder / "temporary"
    home.mkdir()
    temporary.mkdir()
    (folder / "in.onnx").write_bytes(hybrid_model(seed=random.randrange(3)).SerializeToString())
    name = random.choice(list(DISTURBANCES))
    with _disk(home, name == "full disk") as full:
        output = home / "out.onnx"
        if random.random() < 0.5:
            output.write_bytes(_OLD)
        old = output.exists()
        ended = DISTURBANCES[name](folder, random)
        faults = _whole(output, old)
        if full:  # as somebody would who has read the message
            (home / "filler").unlink()
        again = _convert(folder)
        faults += [f"the next conversion: {again.complaint}"] if again.code != 0 else _whole(output, False)
        left = sorted(path.name for path in home.iterdir() if path.name not in ("out.onnx", "plan.json"))
        if left:
            faults.append(f"left behind: {' '.join(left)}")
    seconds, megabytes = max(e.seconds for e in (*ended, again)), max(e.megabytes for e in (*ended, again))
    endings = tuple(str(e.code) for e in ended)
    faults += [f"{name}: {e.complaint}" for e in ended if e.code not in (0, 1, 2, -9)]
    return Outcome("files", seed, name, endings, tuple(faults), 0.0, figures={"wall seconds": seconds, "MB": megabytes})


@contextlib.contextmanager
def _disk(home: Path, small: bool) -> Iterator[bool]:
    """A disk of 64 kB mounted there, nearly full, if that is wanted and permitted."""
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(home)]
    if not small or subprocess.run(command, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        (home / "filler").write_bytes(bytes(200_000))
        yield True
    finally:
        subprocess.run(["umount", str(home)], capture_output=True, check=True)


def _whole(output: Path, old: bool) -> list[str]:
    """What is wrong with the output: it is the old one or a model that loads, or, if there was none, perhaps missing."""
    if not output.exists():
        return ["the old output is gone"] if old else []
    content = output.read_bytes()
    if content == _OLD:
        return [] if old else ["the output was not replaced"]
    try:
        onnx.checker.check_model(onnx.load_from_string(content))
        open_session(onnx.load_from_string(content), threads=1)
    except Exception as error:  # whatever a part of a model makes a library raise
        return [f"the output is broken: {type(error).__name__}"]
    return []


def _words(folder: Path) -> list[str]:
    home = folder / "home"
    return [str(folder / "in.onnx"), str(home / "out.onnx"), "--plan-out", str(home / "plan.json"), *_FLAGS]


def _convert(
    folder: Path, program: str = "from converter.cli.main import main; raise SystemExit(main())", *words: str, seconds: float = _SECONDS
) -> Ended:
    environment = {"TMPDIR": str(folder / "temporary"), "PYTHONPATH": ":".join(p or "." for p in sys.path)}
    return run_limited([sys.executable, "-c", program, *words, *_words(folder)], seconds=seconds, environment=environment)


# Disturbances


def killed_at_a_file(folder: Path, random: Random) -> list[Ended]:
    """By kill -9, as it opens or renames one of the first files, or one of the output's."""
    place, most = random.choice(((folder, 40), (folder / "home", 8), (folder / "home", 8), (folder / "temporary", 12)))
    return [_convert(folder, _KILLED, str(place), str(random.randrange(1, most)))]


def killed_at_a_time(folder: Path, random: Random) -> list[Ended]:
    """By kill -9, after so many seconds; that is what a limit of time does."""
    return [_killed(_convert(folder, seconds=random.uniform(0.2, 8.0)))]


def _killed(ended: Ended) -> Ended:
    return ended if ended.code is not None else Ended(-9, ended.out, ended.err, ended.seconds, ended.megabytes)


def full_disk(folder: Path, random: Random) -> list[Ended]:
    """The disk takes a part of the output only; where none can be mounted, no file may grow beyond that."""
    if os.path.ismount(folder / "home"):
        return [_convert(folder)]
    return [_convert(folder, _LIMITED, str(random.choice((0, 1, 1000, 20_000))))]


def limited_files(folder: Path, random: Random) -> list[Ended]:
    """No file may grow beyond a few bytes, temporary ones neither."""
    return [_convert(folder, _LIMITED, str(random.choice((0, 1, 1000, 10_000, 30_000, 100_000))))]


def two_writers(folder: Path, random: Random) -> list[Ended]:
    """Two conversions to the same files at once."""
    words = [sys.executable, "-c", "from converter.cli.main import main; raise SystemExit(main())", *_words(folder)]
    other = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": ":".join(p or "." for p in sys.path)}
    )
    one = _convert(folder)
    code = other.wait()
    return [one, Ended(code, "", "", one.seconds, one.megabytes)]


DISTURBANCES: Mapping[str, Callable[[Path, Random], list[Ended]]] = {
    "killed at a file": killed_at_a_file,
    "killed at a time": killed_at_a_time,
    "full disk": full_disk,
    "limited files": limited_files,
    "two writers": two_writers,
}
"""Each starts one conversion or two."""
