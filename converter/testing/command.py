"""What the tests of the command share."""

from __future__ import annotations

from pathlib import Path

import onnx

from converter.testing.models import Outcome

QUICK = ["--samples", "4", "--method", "minmax", "--threads", "1"]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def check_refusal(outcome: Outcome, code: int, *words: object) -> None:
    """What, where and what to do in at most three lines, and nothing on stdout; how long stages took is told on a busy machine."""
    assert outcome.code == code, outcome.err
    lines = [line for line in outcome.err.strip().splitlines() if not line.startswith("[")]
    assert len(lines) <= 3 and lines[0].startswith("error: "), outcome.err
    assert any(line.startswith("  do: ") for line in lines), outcome.err
    assert outcome.out == ""
    assert all(str(word) in outcome.err for word in words), outcome.err
