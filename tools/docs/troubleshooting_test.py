"""The page of mistakes does not rot: each is made again, and what is printed then has to be what the page says.

The files that a mistake needs are made by the names that its command or its script mentions.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import io
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from converter import Options, convert, pipeline
from converter.cli.main import main
from converter.doctor.machine import Machine
from converter.load.metadata import PREPROCESS
from converter.runtime.latency import latency_ratio
from converter.testing.command import QUICK
from converter.testing.models import hybrid_model
from tools.docs.pages import ROOT, commands, fences

PAGE = ROOT / "docs" / "troubleshooting.md"

LEFT_OUT = "..."
"""A line that stands for any number of lines."""

PC = Machine("x86_64", "a processor", 2, ("avx2", "avx512_vnni"))
"""The machine on which the page was written; what ``doctor`` says depends on it."""


@dataclass(frozen=True)
class Mistake:
    """One entry of the page: what is typed, what is printed, and the exit code; None for a script."""

    heading: str
    typed: str
    is_script: bool
    printed: str
    code: int | None


def mistakes() -> list[Mistake]:
    return [_read(section) for section in re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]]


def _read(section: str) -> Mistake:
    """An entry has two blocks: what is typed, and what is printed."""
    heading, _, body = section.partition("\n")
    typed, printed = fences(body)
    assert printed.language == "text", heading
    code = re.search(r"[Ee]xit code (\d)", body)
    is_script = typed.language == "python"
    return Mistake(heading, typed.text, is_script, printed.text, None if is_script else int(code[1]) if code else -1)


MISTAKES = mistakes()

# what they need


def _write_model(path: Path, **switches: bool) -> None:
    onnx.save(hybrid_model(metadata={PREPROCESS: "unit"}, **switches), path)


def _write_large_model(path: Path) -> None:
    """A model whose weights have been left behind."""
    onnx.save(hybrid_model(), path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    path.with_name(f"{path.name}.data").unlink()


def _write_int8_model(path: Path) -> None:
    convert(hybrid_model(), path, Options(samples=4, method="minmax"))


def _pixels() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)


def _write_images(folder: Path) -> None:
    folder.mkdir()
    for place, picture in enumerate(_pixels()):
        Image.fromarray(picture).save(folder / f"{place}.jpg")


def _write_labels(folder: Path) -> None:
    folder.mkdir()
    (folder / "labels.csv").write_text("name,label\n")


FILES: Mapping[str, Callable[[Path], object]] = {
    "model.onnx": _write_model,
    "images": _write_images,
    "model.pt": lambda path: path.write_bytes(b"PK\x03\x04archive/data.pkl"),
    "cloned.onnx": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 4812\n"),
    "large.onnx": _write_large_model,
    "model_int8.onnx": _write_int8_model,
    "resizable.onnx": functools.partial(_write_model, dynamic_size=True),
    "network.onnx": lambda path: onnx.save(hybrid_model(), path),
    "labels": _write_labels,
    "pixels.npz": lambda path: np.savez(path, image=_pixels().transpose(0, 3, 1, 2).astype(np.float32)),
    "pictures.npy": lambda path: np.save(path, _pixels()),
}
"""By name; the first two are there in any case."""

BESIDE = ("model.onnx", "images")


def make_files(folder: Path, typed: str) -> None:
    read = typed.replace("model.onnx model_int8.onnx", "model.onnx")  # the second of two paths is written
    for name, write in FILES.items():
        if name in BESIDE or re.search(rf"(?<![\w.]){re.escape(name)}\b", read):
            write(folder / name)


# what is printed


def words_of_shell(command: str) -> list[str]:
    """The words that a shell makes of a command, patterns replaced."""
    return [found for word in shlex.split(command) for found in (sorted(glob.glob(word)) or [word])]


def run_command(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    program, *words = words_of_shell(command)
    assert program == "bridgequant"
    converts = words[0].endswith(".onnx")
    capsys.readouterr()
    code = main([*words, *(QUICK if converts else [])])
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if not line.startswith("[")]  # how long stages took
    return code, "\n".join([*lines, told.out])


def run_script(script: str) -> str:
    """The last lines of what Python prints when a script ends."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            exec(compile(script, PAGE.name, "exec"), {})
        except Exception as error:
            return "".join(traceback.format_exception_only(error))
    return ""


def comparable(text: str) -> list[str]:
    """Lines without what differs from machine to machine: measured decibels, and where Python is."""
    text = text.replace(sys.executable, ".venv/bin/python")
    return [re.sub(r"\d+\.\d dB", "x dB", line.rstrip()) for line in text.strip().splitlines()]


def says(page: str, printed: str) -> bool:
    """Whether the lines of the page are those that were printed, but for what it leaves out."""
    pattern = "".join("(.*\n)*" if line == LEFT_OUT else f"{re.escape(line)}\n" for line in comparable(page))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in comparable(printed))) is not None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("converter.doctor.machine.this_machine", lambda: PC)
    monkeypatch.setattr("converter.doctor.kernels.saturates", lambda: False)
    monkeypatch.setattr(pipeline, "latency_ratio", functools.partial(latency_ratio, seconds=0.0))
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.heading)
def test_a_mistake_is_answered_as_the_page_says(
    mistake: Mistake, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_files(folder, mistake.typed)
    before = contents(folder)
    if mistake.is_script:
        code, printed = None, run_script(mistake.typed)
    else:
        if "export" in mistake.typed:
            monkeypatch.setitem(sys.modules, "timm", None)
        (command,) = commands(f"```sh\n{mistake.typed}```\n")
        code, printed = run_command(command.text, capsys)
    assert code == mistake.code, printed
    assert says(mistake.printed, printed), printed
    if code != 0:
        assert contents(folder) == before, "nothing is written"
        assert mistake.is_script or len(comparable(printed)) <= 3, "what, where, and what to do"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_page_has_the_twenty_likeliest_mistakes() -> None:
    assert len({mistake.heading for mistake in MISTAKES}) == len(MISTAKES) == 20


@pytest.mark.parametrize(
    ("page", "same"),
    [
        ("a 31.0 dB\nb", True),
        ("a 29.5 dB\n...", True),
        ("...\nb", True),
        ("a 31.0 dB", False),
        ("b", False),
        ("a 31.0 dB\nc", False),
        ("...\na 31.0 dB", False),
    ],
)
def test_what_has_rotten_is_found(page: str, same: bool) -> None:
    assert says(page, "a 30.0 dB\nb\n") is same
