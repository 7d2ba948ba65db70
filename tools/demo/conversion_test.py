"""The trained recogniser of the demo: real weights, dynamic height and width, metadata that must survive."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from converter.options import Options
from converter.pipeline import convert
from converter.report import Report
from converter.runtime.session import open_session, run_session
from converter.targets import TARGETS
from tools.demo.recogniser import alphabet, character_accuracy, exact_lines, fetch_model, greedy_decode
from tools.demo.text_lines import TextLine, pixels, render_lines

pytestmark = pytest.mark.slow

LINES = 120


@pytest.fixture(scope="module")
def recogniser(request: pytest.FixtureRequest) -> Path:
    assert request.config.cache is not None
    try:
        return fetch_model(request.config.cache.mkdir("recogniser"))
    except OSError as error:
        pytest.skip(f"the recogniser's wheel cannot be fetched: {error}")


@pytest.fixture(scope="module")
def converted(recogniser: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("recogniser")
    np.savez(folder / "lines.npz", x=np.stack([pixels(line) for line in render_lines(20, seed=1000)]))
    output = folder / "int8.onnx"
    return output, convert(recogniser, output, Options(calib=folder / "lines.npz", threads=2))


def _texts(model: Path, lines: Sequence[TextLine], settings: dict[str, str]) -> list[str]:
    session = open_session(model, settings=settings)
    letters = alphabet(model)
    return [greedy_decode(next(iter(run_session(session, {"x": pixels(line)[None]}).values())), letters)[0] for line in lines]


def test_it_reads_as_well_in_integer(recogniser: Path, converted: tuple[Path, Report]) -> None:
    """Single characters and whole lines, of which each holds some twenty chances to go wrong; the demo compares 300 lines."""
    output, _ = converted
    settings = dict(TARGETS["arm64"].session_settings.get(platform.machine(), {}))
    lines = render_lines(LINES, seed=2)
    truths = [line.text for line in lines]
    integer, real = _texts(output, lines, settings), _texts(recogniser, lines, {})
    assert character_accuracy(truths, integer) >= character_accuracy(truths, real) - 0.5
    assert exact_lines(truths, integer) >= exact_lines(truths, real) - 4.0


def test_parity_and_coverage(converted: tuple[Path, Report]) -> None:
    verdict = converted[1].verdict
    assert verdict is not None
    assert (verdict.parity_db or 0.0) > 45
    assert verdict.integer_coverage.coverage > 0.94, "a few percent are float for accuracy"


def test_at_the_fastest_all_products_are_in_integer(recogniser: Path, converted: tuple[Path, Report]) -> None:
    output, nearer = converted
    lines = output.with_name("lines.npz")
    options = Options(calib=lines, threads=2, placement="balanced:0", samples=4)  # what is cheapest does not hang on samples
    fastest = convert(recogniser, output.with_name("fastest.onnx"), options)
    assert fastest.verdict is not None
    assert (fastest.verdict.parity_db or 0.0) > 45
    assert fastest.verdict.integer_coverage.coverage > 0.99
    assert fastest.predicted < nearer.predicted <= 1.1 * fastest.predicted


def test_every_spelled_out_activation_was_recognised(converted: tuple[Path, Report]) -> None:
    operators = [op.op_type for op in converted[1].plan.ops.values()]
    assert operators.count("HardSwish") == 28
    assert operators.count("LayerNormalization") == 5
    assert operators.count("Softmax") == 3


def test_interface_and_metadata_survive(recogniser: Path, converted: tuple[Path, Report]) -> None:
    before, after = onnx.load(recogniser), onnx.load(converted[0])
    assert after.graph.input == before.graph.input
    assert [o.name for o in after.graph.output] == [o.name for o in before.graph.output]
    kept = {p.key: p.value for p in after.metadata_props}
    assert kept["character"] == {p.key: p.value for p in before.metadata_props}["character"]
    assert kept["bridgequant.method"] == Options().method


def test_other_widths_still_run(converted: tuple[Path, Report]) -> None:
    session = open_session(converted[0])
    for batch, width in ((1, 200), (3, 480)):
        (result,) = run_session(session, {"x": np.zeros((batch, 3, 48, width), np.float32)}).values()
        assert result.shape[0] == batch and result.shape[1] == width // 8
