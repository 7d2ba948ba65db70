from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converter.verify import row_matching
from converter.verify.row_matching import Pair, match_rows


def pair(wanted: Any, got: Any, axis: int = 0) -> Pair:
    return match_rows({"y": np.asarray(wanted, np.float32)}, {"y": np.asarray(got, np.float32)}, {"y": axis})["y"]


def test_rows_in_another_order_are_found() -> None:
    found = pair([[1, 2], [3, 4], [5, 6]], [[5, 6.1], [1, 2], [3, 4]])
    np.testing.assert_array_equal(found.wanted, [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(found.got, np.asarray([[1, 2], [3, 4], [5, 6.1]], np.float32))
    assert found.unmatched == 0 and found.paired.all()


def test_the_sum_of_all_distances_counts_not_the_nearest_of_the_first() -> None:
    """The first row is nearest to 1.9; taking it would leave -10 to the second."""
    np.testing.assert_array_equal(pair([[0], [2]], [[1.9], [-10]]).got, np.asarray([[-10], [1.9]], np.float32))


def test_a_row_more_on_either_side_stands_against_zeros() -> None:
    more = pair([[1, 1], [9, 9]], [[9, 8]])
    np.testing.assert_array_equal(more.wanted, [[9, 9], [1, 1]])
    np.testing.assert_array_equal(more.got, [[9, 8], [0, 0]])
    assert more.unmatched == 1 and more.paired.tolist() == [[True], [False]]
    less = pair([[9, 8]], [[1, 1], [9, 9]])
    np.testing.assert_array_equal(less.wanted, [[9, 8], [0, 0]])
    np.testing.assert_array_equal(less.got, [[9, 9], [1, 1]])
    assert less.unmatched == 1


@pytest.mark.parametrize(("n", "m"), [(0, 0), (2, 0), (0, 3)])
def test_no_row_at_all(n: int, m: int) -> None:
    found = pair(np.ones((n, 4)), np.ones((m, 4)))
    assert found.wanted.shape == found.got.shape == (max(n, m), 4)
    assert found.unmatched == max(n, m)
    assert float(np.abs(found.wanted - found.got).sum()) == 4 * max(n, m)


def test_rows_of_several_outputs_move_together() -> None:
    """By boxes alone the two are alike, the scores tell them apart, the labels too."""
    boxes = np.asarray([[[1, 1], [1, 1]]], np.float32)
    scores, labels = np.asarray([[0.9, 0.1]], np.float32), np.asarray([7, 8])
    wanted = {"boxes": boxes, "scores": scores, "labels": labels[None]}
    got = {"boxes": boxes, "scores": scores[:, ::-1], "labels": labels[None, ::-1]}
    found = match_rows(wanted, got, dict.fromkeys(wanted, 1))
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name].got, value)


def test_a_large_output_does_not_outweigh_a_small_one() -> None:
    """In pixels the boxes differ by more than all scores together, relative to their size by less."""
    wanted = {"boxes": np.asarray([[500.0], [501.0]]), "scores": np.asarray([[0.9], [0.1]])}
    got = {"boxes": np.asarray([[500.0], [501.0]]), "scores": np.asarray([[0.1], [0.9]])}
    np.testing.assert_array_equal(match_rows(wanted, got, {"boxes": 0, "scores": 0})["scores"].got, [[0.9], [0.1]])


def test_integers_alone_are_matched_by_what_is_equal() -> None:
    kept = np.asarray([[0, 1, 5], [0, 1, 9], [0, 2, 4]])
    found = match_rows({"y": kept}, {"y": kept[[2, 0]]}, {"y": 0})["y"]
    assert found.unmatched == 1
    assert ((found.wanted == found.got) & found.paired).mean() == pytest.approx(2 / 3)


def test_rows_lie_on_any_axis_and_are_matched_apart_in_each_place_before_it() -> None:
    wanted = np.asarray([[[1, 2, 3], [1, 2, 3]]], np.float32)
    got = np.asarray([[[3, 1, 2], [2, 3, 1]]], np.float32)
    np.testing.assert_array_equal(pair(wanted, got, axis=2).got, wanted)
    with_rows_first = np.asarray([[[1, 1], [2, 2], [3, 3]]], np.float32)
    np.testing.assert_array_equal(pair(with_rows_first, with_rows_first[:, ::-1], axis=1).got, with_rows_first)


def test_what_is_not_named_stays_as_it_is() -> None:
    wanted, got = np.asarray([[1.0], [2.0]]), np.asarray([[2.0], [1.0]])
    found = match_rows({"y": wanted}, {"y": got}, {})["y"]
    np.testing.assert_array_equal(found.got, got)
    assert found.unmatched == 0


def test_an_output_with_another_number_of_rows_is_matched_along_them() -> None:
    found = match_rows({"y": np.asarray([[1.0, 1.0], [2.0, 2.0]])}, {"y": np.asarray([[2.0, 2.0]])}, {})["y"]
    np.testing.assert_array_equal(found.got, [[2, 2], [0, 0]])


@pytest.mark.parametrize("shape", [(3, 3), (4,)])
def test_shapes_without_anything_in_common_are_all_error(shape: tuple[int, ...]) -> None:
    found = match_rows({"y": np.full((2, 2), 2.0)}, {"y": np.full(shape, 3.0)}, {})["y"]
    assert float(np.square(found.wanted - found.got).sum()) == 4 * 4 + 9 * np.prod(shape)
    assert not found.paired.any()


def test_places_that_are_not_finite_help_to_tell_rows_apart() -> None:
    wanted = np.asarray([[-np.inf, 1.0], [1.0, -np.inf]])
    np.testing.assert_array_equal(pair(wanted, wanted[::-1]).got, wanted)
    alone = pair(wanted, wanted[:1])
    np.testing.assert_array_equal(alone.got, [[-np.inf, 1], [0, -np.inf]])


def test_very_many_rows_are_matched_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_matching, "MOST_ASSIGNED", 8)
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((40, 3)).astype(np.float32)
    order = np.arange(40).reshape(-1, 4)[:, ::-1].reshape(-1)  # no row moves by more than three places
    np.testing.assert_array_equal(pair(rows, rows[order]).got, rows)
    fewer = pair(rows, rows[order][:-1])
    assert fewer.unmatched == 1 and ((fewer.wanted == fewer.got) | ~fewer.paired).all()
    np.testing.assert_array_equal(pair(rows[:-1], rows[order]).unmatched, 1)
