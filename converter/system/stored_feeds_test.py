from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np
import pytest

from converter.errors import UsageError
from converter.system import stored_feeds
from converter.system.stored_feeds import Feed, StoredFeeds, in_bounded_memory


def feeds(count: int) -> Iterator[Feed]:
    for number in range(count):
        yield {"x": np.full((1, 2, 3), number, np.float32), "size": np.array([[number, 7]], np.int64), "none": np.zeros((1, 0), np.float32)}


def same(one: Feed, other: Feed) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) and one[name].shape == other[name].shape
        for name in one
    )


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two samples of 40 bytes."""
    monkeypatch.setattr(stored_feeds, "_BYTES_IN_MEMORY", 80)


@pytest.mark.usefixtures("small_memory")
def test_samples_are_the_same_from_a_file_and_parts_of_them_too() -> None:
    given = list(feeds(7))
    found = in_bounded_memory(feeds(7))
    assert isinstance(found, StoredFeeds) and len(found) == 7
    assert all(same(one, other) for one, other in zip(found, given, strict=True))
    assert same(found[-1], given[-1])
    part = found[2:6]
    assert isinstance(part, StoredFeeds) and len(part) == 4
    assert all(same(one, other) for one, other in zip(part[1:], given[3:6], strict=True))
    with pytest.raises(IndexError):
        found[7]


@pytest.mark.usefixtures("small_memory")
def test_few_samples_stay_in_memory() -> None:
    given = list(feeds(2))
    found = in_bounded_memory(given)
    assert isinstance(found, tuple) and all(one is other for one, other in zip(found, given, strict=True))
    assert in_bounded_memory([]) == ()


@pytest.mark.usefixtures("small_memory")
def test_samples_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="samples differ"):
        in_bounded_memory([*feeds(3), {"x": np.zeros((2, 2, 3), np.float32)}])


@pytest.mark.usefixtures("small_memory")
def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(UsageError, match="No space left on device") as caught:
        in_bounded_memory(feeds(3))
    assert "TMPDIR" in caught.value.hint
