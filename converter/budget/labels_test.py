"""What images show."""

from __future__ import annotations

import pytest

from converter.budget.labels import class_of_each, outputs_of_classes


def test_the_class_is_the_innermost_folder_or_the_number_in_front_of_a_wordnet_number() -> None:
    assert class_of_each(["a/cat/1.png", "dog/0007_n01514668_cock.jpg", "3.png"]) == ["cat", "dog", ""]
    assert class_of_each(["0007_n01514668_cock.jpg", "x/0012_n01530575_brambling.jpg"]) == ["7", "12"]
    assert class_of_each([]) == []


@pytest.mark.parametrize(
    ("classes", "outputs", "names", "wanted"),
    [
        (["dog", "cat"], 3, ["cat", "cow", "dog"], {"dog": 2, "cat": 0}),
        (["7", "12"], 1000, [], {"7": 7, "12": 12}),
        (["1", "2", "10"], 3, [], {"1": 0, "2": 1, "10": 2}),
        (["b", "a"], 2, [], {"a": 0, "b": 1}),
        (["b", "a"], 3, [], None),
    ],
)
def test_classes_are_matched_by_name_by_number_or_by_order(
    classes: list[str], outputs: int, names: list[str], wanted: dict[str, int] | None
) -> None:
    assert outputs_of_classes(classes, outputs, names) == wanted
