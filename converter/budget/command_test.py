"""Metrics that are programs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from converter.budget.command import check_command, score_by_command
from converter.errors import UsageError
from converter.testing.models import hybrid_model


def command(code: str) -> list[str]:
    return [sys.executable, "-c", f"import sys, pathlib; {code}"]


def test_it_gets_the_path_of_a_model_last_and_its_last_line_counts(tmp_path: Path) -> None:
    words = [*command("print('loading'); print(pathlib.Path(sys.argv[2]).stat().st_size, end='\\n\\n')"), "first"]
    (tmp_path / "a.onnx").write_bytes(b"12345")
    assert score_by_command(words, tmp_path / "a.onnx") == 5.0
    model = hybrid_model()
    assert score_by_command(words, model) == len(model.SerializeToString(deterministic=True))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('loading'); sys.exit('no such data')", "ended with exit code 1: no such data"),
        ("sys.exit(3)", "ended with exit code 3, without a word"),
        ("print('mAP: 0.3')", "printed 'mAP: 0.3' where a number was expected"),
        ("pass", "printed nothing where a number was expected"),
    ],
)
def test_what_fails_is_told_in_its_own_words(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        score_by_command(command(code), tmp_path / "a.onnx")
    assert said in caught.value.what and caught.value.where.startswith("--metric ") and caught.value.hint


def test_what_is_no_program_is_refused_with_what_could_be_meant() -> None:
    with pytest.raises(UsageError, match="'top5' is no metric, and no program") as caught:
        check_command("top5")
    assert "top1, agreement, sqnr" in caught.value.hint
    for text in ("", "python 'half"):
        with pytest.raises(UsageError, match="command"):
            check_command(text)
    assert check_command(f"{shlex.quote(sys.executable)} -m 'a b'") == [sys.executable, "-m", "a b"]
