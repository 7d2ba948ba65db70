"""The text-line recogniser of the demo, on rendered lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from converter.errors import UsageError
from tools.benchmarks.real.networks.task import Outputs, Sample, Task
from tools.demo.recogniser import MEMBER, alphabet, character_accuracy, exact_lines, greedy_decode
from tools.demo.text_lines import CALIBRATION_SEED, TEST_SEED, pixels, render_lines

__all__ = ["recogniser_task"]

_ROOT = Path(__file__).parents[4]
_CALIBRATING, _LINES = 40, 300


def _fetched() -> Path:
    """What the demo has fetched."""
    path = _ROOT / "build/demo" / Path(MEMBER).name
    if not path.is_file():
        raise UsageError("the recogniser is not there", where=path.name, hint="run make demo, which fetches it")
    return path


def recogniser_task(found: Callable[[], Path] = _fetched) -> Task:
    """Rendered lines of text, and what is read of them.

    Args:
        found: gives the float network.
    """

    def lines(_: Path, __: frozenset[str]) -> Iterator[Sample]:
        characters = alphabet(found())
        for number, line in enumerate(render_lines(_LINES, TEST_SEED)):
            yield Sample(f"{number:03}", pixels(line), (line.text, characters), f"{number:03}")

    return Task(
        "recogniser",
        Path(MEMBER).name,
        "x",
        "lines that are read right, %",
        "",
        lines,
        lambda _, choice: (np.stack([pixels(line) for line in render_lines(_CALIBRATING, CALIBRATION_SEED + choice)]), frozenset()),
        _text,
        _read_right,
        lambda _: found(),
    )


def _text(outputs: Outputs, truth: tuple[str, Sequence[str]]) -> str:
    (probabilities,) = outputs.values()
    (text,) = greedy_decode(probabilities, truth[1])
    return text


def _read_right(answers: Sequence[str], truths: Sequence[tuple[str, Sequence[str]]]) -> dict[str, float]:
    texts = [text for text, _ in truths]
    return {"exact lines": exact_lines(texts, answers), "characters": character_accuracy(texts, answers)}
