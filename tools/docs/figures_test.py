"""The pictures show what was measured, and the sentences beside them say the same."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from converter.diagnosis.records import ChannelSpread, Diagnosis, Histogram, Segment, TensorFigures
from converter.quantization.parameters import QuantParams
from converter.testing.models import hybrid_model
from tools.docs.figures import along_the_network, codes_left, draw, main, most_cut, svg, the_problem

TENSOR = TensorFigures(
    name="a",
    operator="conv",
    op_type="Conv",
    segment=0,
    kind="measured",
    params=QuantParams((0.1,), (0,), 8, True),
    shape=(1, 4, 8, 8),
    low=-12.8,
    high=12.7,
    local_db=37.0,
    accumulated_db=30.0,
    clipped=0.0,
    sensitivity=1e-6,
    runs="integer",
    float_cost=1.0,
    integer_cost=0.5,
    reason="",
    reads=(),
    histogram=Histogram(-12.8, 12.7, (1, 5, 1)),
    spread=ChannelSpread(1, 4, 2, 4.0),
)


def test_the_median_channel_has_its_share_of_the_codes() -> None:
    wide = replace(TENSOR, spread=ChannelSpread(1, 4, 2, 64.0))
    weight = replace(TENSOR, kind="weight", spread=ChannelSpread(0, 4, 2, 256.0))
    assert codes_left(diagnosis(TENSOR, wide, weight, replace(TENSOR, spread=None))) == [4.0, 64.0]


def test_the_most_cut_tensor_keeps_the_smallest_part_of_what_was_seen() -> None:
    cut = replace(TENSOR, name="b", low=-51.0, high=51.0)
    fixed = replace(cut, name="c", kind="fixed", low=-510.0)
    assert most_cut(diagnosis(TENSOR, cut, fixed)).name == "b"


def test_along_the_network_there_is_a_dot_a_tensor_and_a_shade_a_bridge_block() -> None:
    exact = replace(TENSOR, accumulated_db=200.0)
    rounded = replace(TENSOR, segment=1, accumulated_db=20.0)
    as_float = replace(TENSOR, segment=1, accumulated_db=25.0, runs="float")
    (axes,) = along_the_network(diagnosis(exact, TENSOR, rounded, as_float)).axes
    integer, others = axes.collections
    assert np.asarray(integer.get_offsets()).tolist() == [[0.0, 30.0], [1.0, 20.0]]
    assert np.asarray(others.get_offsets()).tolist() == [[2.0, 25.0]]
    assert [text.get_text() for text in axes.texts] == ["bridge block"]
    (shade,) = axes.patches
    assert isinstance(shade, Rectangle) and (shade.get_x(), shade.get_width()) == (0.5, 2.0)


def test_the_problem_is_drawn_with_what_was_cut_off_and_what_errors_cost() -> None:
    cut = replace(TENSOR, name="b", low=-51.0, high=51.0, histogram=Histogram(-51.0, 51.0, (1, 5, 1)))
    _, middle, right = the_problem(diagnosis(cut, replace(TENSOR, local_db=30.0, sensitivity=1e-4))).axes
    ends = [(p.get_x(), p.get_x() + p.get_width()) for p in middle.patches if isinstance(p, Rectangle)]
    assert [round(x, 6) for end in ends for x in end] == [-51.0, -12.8, 12.7, 51.0]
    assert np.asarray(right.collections[0].get_offsets()).tolist() == [[37.0, 1e-6], [30.0, 1e-4]]


def test_a_picture_is_the_same_bytes_each_time() -> None:
    first, second = (svg(the_problem(diagnosis(TENSOR))) for _ in range(2))
    assert first == second and b"Channels of one tensor differ" in first


@pytest.mark.slow
def test_a_network_is_drawn_and_told(tmp_path: Path) -> None:
    channels, cut, losses = draw(hybrid_model(), None, tmp_path / "pictures")
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {"along_the_network.svg", "the_problem.svg"}
    assert channels.startswith("median channel: fewest") and cut.startswith("most cut: /") and "dB add" in losses
    assert not math.isnan(float(channels.split()[3]))


def test_an_unknown_network_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--network", "resnet"]) == 2
    assert "there is no such checkpoint" in capsys.readouterr().err


def diagnosis(*tensors: TensorFigures) -> Diagnosis:
    segments = (Segment("", (8, 8), ("conv",)), Segment("round trip", (4, 4), ("linear",)))
    return Diagnosis(tensors, segments, (), "", 8)
