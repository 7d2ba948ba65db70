from __future__ import annotations

import pytest

from tools.web.overhead import Overhead, fit_overhead
from tools.web.profile import NodeTime


def test_a_line_is_found_again() -> None:
    found = fit_overhead([3, 4, 9], [2.0 + 0.5 * 3, 2.0 + 0.5 * 4, 2.0 + 0.5 * 9])
    assert found.node == pytest.approx(2.0) and found.tensor == pytest.approx(0.5)


@pytest.mark.parametrize(("added", "wanted"), [([3.0, 8.0], (0.0, 1.9)), ([4.0, 1.0], (2.5, 0.0))])
def test_neither_number_is_negative(added: list[float], wanted: tuple[float, float]) -> None:
    """For 2 and 4 tensors: through the origin, the best slope is (2 x 3 + 4 x 8) / (4 + 16); of what falls, the mean is best."""
    found = fit_overhead([2, 4], added)
    assert (found.node, found.tensor) == pytest.approx(wanted)


def test_what_the_profile_adds_is_taken_away_and_no_time_is_negative() -> None:
    assert Overhead(2.0, 0.5).without(NodeTime("n", "Add", "float[1]", 3, 10.0)) == 6.5
    assert Overhead(2.0, 0.5).without(NodeTime("n", "Add", "float[1]", 3, 1.0)) == 0.0
