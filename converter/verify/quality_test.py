from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from converter.verify.quality import GroupQuality, OutputQuality, finite_alike, measure
from converter.verify.row_matching import match_rows


def quality(wanted: Sequence[Any], got: Sequence[Any], *, row: int | None = None, classes: int | None = None, **rest: Any) -> OutputQuality:
    """Of one output over several samples."""
    rows = {} if row is None else {"y": row}
    pairs = [match_rows({"y": np.asarray(w)}, {"y": np.asarray(g)}, rows) for w, g in zip(wanted, got, strict=True)]
    scores = {} if classes is None else {"y": classes}
    (found,) = measure(pairs, rows, {"y": rest["groups"]} if "groups" in rest else {}, scores)
    return found


def test_noise_is_measured_over_all_samples_together() -> None:
    found = quality([[3.0], [4.0]], [[3.0], [4.5]])
    assert found == OutputQuality("y", pytest.approx(20.0), None)  # type: ignore[arg-type]


def test_the_highest_score_is_looked_for_where_the_classes_are() -> None:
    wanted, got = [[[1.0, 2.0], [4.0, 3.0]]], [[[1.0, 2.0], [2.5, 3.0]]]
    assert quality(wanted, got).agreement is None
    assert quality(wanted, got, classes=-1).agreement == 0.5
    assert quality(wanted, got, classes=0).agreement == 1.0


def test_the_highest_score_of_a_row_without_a_partner_is_not_the_same() -> None:
    wanted, got = [[[9.0, 0.0], [5.0, 1.0]]], [[[9.0, 0.0]]]
    found = quality(wanted, got, row=0, classes=-1)
    assert found.agreement == 0.5 and found.rows_matched and found.rows_unmatched == 1


def test_all_of_a_row_without_a_partner_is_noise() -> None:
    found = quality([[[3.0], [1.0]]], [[[3.0]]], row=0)
    assert found.sqnr_db == pytest.approx(10.0)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_integers_are_counted(dtype: type) -> None:
    found = quality([np.asarray([1, 2, 3, 4], dtype)], [np.asarray([1, 2, 4, 4], dtype)], classes=-1)
    assert (found.sqnr_db, found.agreement) == (None, 0.75)
    assert found.integers_db == pytest.approx(10 * np.log10(30))


def test_truth_values_are_counted() -> None:
    assert quality([[True, False, True]], [[True, True, True]]).agreement == pytest.approx(2 / 3)


def test_what_is_not_finite_on_both_sides_is_left_out() -> None:
    found = quality([[[-np.inf, 3.0], [4.0, np.nan]]], [[[-np.inf, 3.0], [4.5, np.nan]]], groups=(1, ((0, 1), (1, 2))))
    assert found.sqnr_db == pytest.approx(20.0)
    assert [g.sqnr_db for g in found.groups] == [pytest.approx(10 * np.log10(64)), 200.0]


def test_no_value_on_any_sample_gives_no_number() -> None:
    empty = np.zeros((0, 4), np.float32)
    found = quality([empty], [empty], row=0, classes=-1, groups=(1, ((0, 2), (2, 4))))
    assert (found.sqnr_db, found.agreement, found.lowest_db) == (None, None, None)
    assert [g.sqnr_db for g in found.groups] == [None, None]
    assert quality([empty.astype(np.int64)], [empty.astype(np.int64)], row=0).agreement is None


def test_a_sample_without_rows_counts_for_nothing() -> None:
    empty = np.zeros((0, 1))
    assert quality([empty, [[3.0], [4.0]]], [empty, [[3.0], [4.5]]], row=0).sqnr_db == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("got", "collapsed"),
    [([0.0, 0.0], "zero"), ([0.5, 0.5], "constant"), ([0.2, 0.8], "")],
)
def test_a_group_may_collapse(got: list[float], collapsed: str) -> None:
    found = quality([[[100.0, 0.1, 0.9]]], [[[100.0, *got]]], groups=(1, ((0, 1), (1, 3))))
    assert found.groups[0] == GroupQuality(1, 0, 1, 200.0)
    assert found.groups[1].collapsed == collapsed
    assert found.lowest_db == found.groups[1].sqnr_db


def test_what_is_constant_in_float_has_not_collapsed() -> None:
    found = quality([[[1.0, 0.0, 0.5]]], [[[1.0, 0.0, 0.5]]], groups=(1, ((1, 2), (2, 3))))
    assert [g.collapsed for g in found.groups] == ["", ""]


def test_shapes_with_nothing_in_common_have_neither_groups_nor_a_highest_score() -> None:
    found = quality([np.ones((2, 2))], [np.ones((3, 3))], classes=-1, groups=(1, ((0, 1), (1, 2))))
    assert found.agreement is None and found.groups == ()
    assert found.sqnr_db == pytest.approx(10 * np.log10(4 / 13))


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ([1.0, np.inf], [2.0, np.inf], True),
        ([1.0, np.inf], [2.0, -np.inf], False),
        ([1.0, np.nan], [2.0, np.nan], True),
        ([1.0, np.nan], [2.0, np.inf], False),
        ([np.nan, 1.0], [1.0, 1.0], False),
        ([1, 2], [3, 4], True),
    ],
)
def test_places_that_are_not_finite_are_compared_with_their_kind(one: list[float], other: list[float], alike: bool) -> None:
    assert finite_alike(np.asarray(one), np.asarray(other)) is alike
