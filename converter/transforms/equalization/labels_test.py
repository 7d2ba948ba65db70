from __future__ import annotations

import networkx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from converter.transforms.equalization.labels import Classes, compress, merge_axes

LABELS = 6
signed = st.integers(-LABELS, LABELS)


@given(st.lists(st.tuples(signed, signed), max_size=10))
def test_joined_labels_are_equal_inverse_or_pinned(joins: list[tuple[int, int]]) -> None:
    """Against a graph in which every label and its inverse are vertices and every equation, and its inverse, is an edge."""
    classes = Classes()
    classes.fresh(LABELS)
    equal = networkx.Graph()
    equal.add_nodes_from(range(-LABELS, LABELS + 1))
    for left, right in joins:
        classes.join(np.asarray([left]), np.asarray([right]))
        equal.add_edges_from([(left, right), (-left, -right)])

    def factor_is_one(label: int) -> bool:
        return bool(networkx.has_path(equal, label, 0) or networkx.has_path(equal, label, -label))

    for left in range(-LABELS, LABELS + 1):
        a = classes.resolve(np.asarray([left])).item()
        assert (a == 0) == factor_is_one(left)
        for right in range(-LABELS, LABELS + 1):
            b = classes.resolve(np.asarray([right])).item()
            assert (a == b) == (networkx.has_path(equal, left, right) or (factor_is_one(left) and factor_is_one(right)))


def test_the_first_label_of_a_class_stands_for_it() -> None:
    classes = Classes()
    labels = classes.fresh(4)
    classes.join(labels[3:], -labels[1:2])
    classes.join(labels[2:3], labels[3:])
    assert classes.resolve(labels).tolist() == [1, 2, -2, -2]
    assert classes.count(labels) == 2
    classes.pin(labels[2:3])
    assert classes.resolve(labels).tolist() == [1, 0, 0, 0]


def test_axes_along_which_nothing_varies_have_length_one() -> None:
    labels = np.broadcast_to(np.asarray([[[1], [2]]]), (3, 2, 4))
    assert compress(labels).tolist() == [[[1], [2]]]
    assert compress(np.full((2, 3), 7)).tolist() == [[7]]
    assert compress(np.asarray([[1, 2], [1, 3]])).shape == (2, 2)


def test_what_does_not_vary_along_an_axis_is_equal_there() -> None:
    classes = Classes()
    labels = classes.fresh(2, 3)
    merged = merge_axes(classes, labels, [1])
    assert merged.shape == (2, 1)
    assert classes.resolve(labels).tolist() == [[1], [4]]
