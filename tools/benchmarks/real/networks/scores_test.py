from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.benchmarks.real.networks.detection import judged_picture, without_doubles
from tools.benchmarks.real.networks.scores import (
    Detections,
    decibels,
    error_of_difference,
    mean_average_precision,
    overlap_of,
    psnr_luma,
    true_detections,
    verification,
)


def test_people_far_apart_are_always_told_apart_and_equal_embeddings_never() -> None:
    people = np.array([1, 1, 2, 2, 3, 3])
    apart = verification(np.eye(3)[people - 1] + 0.01 * np.eye(6)[:, :3], people)
    assert (apart.nearest, apart.auc, apart.tar) == (100.0, 100.0, 100.0)
    alike = verification(np.ones((6, 3)), people)
    assert alike.auc == 50.0 and alike.tar == 0.0


def test_verification_counts_pairs_by_hand() -> None:
    # angles 0, 10 | 30, 90 degrees: pairs of one person are 10 and 60 apart, pairs of two 30, 90, 20, 80
    angles = np.deg2rad([0.0, 10.0, 30.0, 90.0])
    found = verification(np.stack([np.cos(angles), np.sin(angles)], 1), np.array([1, 1, 2, 2]))
    assert found.nearest == 75.0  # of 30 degrees, 10 is nearest, of another person
    assert found.auc == pytest.approx(100.0 * (4 + 2) / 8)
    assert found.tar == 50.0  # closer than the closest of two people, 20 degrees: only the pair that is 10 apart


def test_a_step_of_one_code_in_luma_is_48_db() -> None:
    grey = np.full((3, 20, 20), 0.5)
    lighter = grey + 1.0 / 219.0  # luma of 219 steps for the whole range, so one of 255
    assert psnr_luma(grey, lighter, 4) == pytest.approx(20 * np.log10(255.0), abs=1e-6)
    edge = grey.copy()
    edge[:, :4] = 1.0
    assert psnr_luma(grey, edge, 4) == pytest.approx(200.0)
    assert psnr_luma(np.ones((3, 20, 20)), np.full((3, 20, 20), 7.0), 4) == pytest.approx(200.0)


def test_overlap_of_two_squares_that_share_a_quarter_is_a_seventh() -> None:
    assert overlap_of(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 1, 3, 3], [5, 5, 6, 6]])) == pytest.approx(np.array([[1 / 7, 0.0]]))


def test_an_object_is_found_once() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    right = true_detections(boxes, np.array([1, 1, 1]), np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]]), np.array([1, 2]))
    assert right.tolist() == [True, False, False]
    assert true_detections(boxes, np.array([1, 1, 1]), np.empty((0, 4)), np.empty(0, int)).tolist() == [False] * 3


def _detections(scores: list[float], right: list[bool], objects: int) -> Detections:
    return Detections(np.zeros(len(scores), int), np.array(scores), np.array(right, bool), np.zeros(objects, int))


def test_average_precision_by_hand() -> None:
    # right, wrong, right of two objects: precision 1 up to recall 0.5 (51 of the recalls), then 2/3 (50 of them)
    found = [_detections([0.9, 0.5], [True, True], 1), _detections([0.7], [False], 1)]
    assert mean_average_precision(found) == pytest.approx(100.0 * (51 * 1.0 + 50 * 2.0 / 3.0) / 101)
    assert mean_average_precision([_detections([0.9], [True], 2)]) == pytest.approx(100.0 * 51 / 101)
    assert mean_average_precision([_detections([], [], 1)]) == 0.0


def test_doubles_are_removed_within_a_class_only() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9.5], [0, 0, 10, 9.5], [0, 0, 10, 5]])
    assert without_doubles(boxes, np.array([1, 1, 2, 1])).tolist() == [0, 2, 3]


def test_a_picture_of_a_detector_by_hand() -> None:
    # a picture of 320 x 160 stands in the letterbox twice as large, 160 pixels from the top
    labels = np.array([[1, 0.5, 0.5, 0.25, 0.5]])
    output = np.zeros((6, 3), np.float32)
    output[:, 0] = [320, 320, 160, 160, 0.1, 0.8]  # right
    output[:, 1] = [320, 320, 160, 150, 0.1, 0.7]  # a double of it
    output[:, 2] = [100, 100, 10, 10, 0.3, 0.0005]
    found = judged_picture(output, (320, 160), labels)
    assert found.classes.tolist() == [1, 0] and found.right.tolist() == [True, False] and found.objects.tolist() == [1]
    assert found.scores == pytest.approx([0.8, 0.3])


@given(st.lists(st.booleans(), min_size=40, max_size=80), st.integers(1, 5))
def test_the_jackknife_of_a_mean_of_single_samples_is_its_standard_error(right: list[bool], shift: int) -> None:
    other = np.roll(np.array(right, float), shift)
    values, places = np.array(right, float)[:40], other[:40]
    # with as many groups as the 20 that are formed, of two samples each
    groups = np.arange(40) // 2
    error = error_of_difference(lambda p: float(values[p].mean()), lambda p: float(places[p].mean()), groups)
    means = (places - values).reshape(20, 2).mean(1)
    assert error == pytest.approx(means.std(ddof=1) / np.sqrt(20), abs=1e-12)


def test_equal_models_differ_by_nothing_and_without_error() -> None:
    values = np.arange(10.0)
    assert error_of_difference(lambda p: float(values[p].mean()), lambda p: float(values[p].mean()), np.arange(10)) == 0.0


def test_decibels() -> None:
    assert decibels(100.0, 1.0) == 20.0 and decibels(1.0, 0.0) == 200.0 and decibels(0.0, 1.0) == -200.0
