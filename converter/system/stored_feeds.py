"""Samples that do not fit in memory: in a temporary file, from which each is read when it is needed."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, overload

import numpy as np
import numpy.typing as npt

from converter.system.temporary_files import no_temporary_files

__all__ = ["StoredFeeds", "in_bounded_memory"]

Feed = dict[str, npt.NDArray[Any]]
Layout = tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]

_BYTES_IN_MEMORY = 64 << 20


class StoredFeeds(Sequence[Feed]):
    """Samples of one layout in a file, one after the other; a part of them is one of these again.

    Args:
        file: open; it goes when nobody holds it any more.
        layout: name, type and shape of each array of a sample.
        places: of these samples in the file.
        lock: of whoever moves in the file.
    """

    def __init__(self, file: IO[bytes], layout: Layout, places: range, lock: threading.Lock) -> None:
        self._file, self._layout, self._places, self._lock = file, layout, places, lock
        self._size = sum(_size(dtype, shape) for _, dtype, shape in layout)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Feed: ...

    @overload
    def __getitem__(self, index: slice) -> StoredFeeds: ...

    def __getitem__(self, index: int | slice) -> Feed | StoredFeeds:
        if isinstance(index, slice):
            return StoredFeeds(self._file, self._layout, self._places[index], self._lock)
        with self._lock:
            self._file.seek(self._places[index] * self._size)
            data = bytearray(self._file.read(self._size))
        feed, start = Feed(), 0
        for name, dtype, shape in self._layout:
            end = start + _size(dtype, shape)
            feed[name] = np.frombuffer(data[start:end], dtype).reshape(shape)
            start = end
        return feed


def in_bounded_memory(feeds: Iterable[Feed]) -> Sequence[Feed]:
    """All samples, which are taken one by one: as a tuple if they are small together, else in a temporary file.

    Args:
        feeds: all with arrays of the same names, types and shapes.

    Raises:
        UsageError: there is no room for temporary files.
    """
    kept, held = list[Feed](), 0
    coming = iter(feeds)
    for feed in coming:
        kept.append(feed)
        held += sum(array.nbytes for array in feed.values())
        if held > _BYTES_IN_MEMORY:
            return _stored(kept, coming)
    return tuple(kept)


def _stored(first: list[Feed], more: Iterator[Feed]) -> StoredFeeds:
    layout = _layout(first[0])
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  it is held as long as the samples are
        count = 0
        while first:
            _append(file, first.pop(0), layout)
            count += 1
        for feed in more:
            _append(file, feed, layout)
            count += 1
        file.flush()
    except OSError as error:
        raise no_temporary_files(error) from error
    return StoredFeeds(file, layout, range(count), threading.Lock())


def _append(file: IO[bytes], feed: Feed, layout: Layout) -> None:
    if _layout(feed) != layout:
        raise ValueError(f"samples differ: {_layout(feed)} and {layout}")
    for array in feed.values():
        file.write(np.ascontiguousarray(array).data if array.size else b"")


def _layout(feed: Feed) -> Layout:
    return tuple((name, array.dtype, array.shape) for name, array in feed.items())


def _size(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return dtype.itemsize * int(np.prod(shape, dtype=np.int64))
