"""Quality: how far the outputs of a converted model are from those of the float model, output by output.

Numbers are judged by signal to quantization noise, integers by how many of them are the same, class scores also by
their highest one, and an output that joins quantities of different ranges also by its parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from converter.verify.row_matching import Pair

__all__ = ["GroupQuality", "Groups", "OutputQuality", "Outputs", "finite_alike", "measure", "sqnr"]

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
"""What a model answers to one sample, by output name."""

Groups = Mapping[str, tuple[int, tuple[tuple[int, int], ...]]]
"""By output name: an axis of the output, counted from the front, and (start, stop) of each group of channels along it."""

_EXACT_DB = 200.0


@dataclass(frozen=True)
class GroupQuality:
    """How some channels of an output compare with float.

    Attributes:
        axis: of the channels.
        start: the first of them.
        stop: one behind the last.
        sqnr_db: signal to quantization noise ratio over these channels alone; None if none of them holds a value.
        collapsed: ``zero`` or ``constant`` if all their values are so, and those of the float model are not.
    """

    axis: int
    start: int
    stop: int
    sqnr_db: float | None
    collapsed: Literal["", "zero", "constant"] = ""


@dataclass(frozen=True)
class OutputQuality:
    """How one output of the emitted model compares with float, over all held-aside samples.

    Attributes:
        name: of the output.
        sqnr_db: signal to quantization noise ratio; None for an output of integers, and for one that holds no value on any sample.
        agreement: of class scores, the share of positions whose highest score is at the same place; of integers, the share that is
            equal; None for anything else.
        groups: of channels, where the output joins quantities of different ranges.
        rows_matched: its rows are selected by the network; they were matched with those of the float model before they were compared.
        rows_unmatched: rows without a partner, over all samples; all of their power counts as noise.
        integers_db: the ratio for an output of integers, read as numbers: it says much of a picture and little of labels.
    """

    name: str
    sqnr_db: float | None
    agreement: float | None
    groups: tuple[GroupQuality, ...] = ()
    rows_matched: bool = False
    rows_unmatched: int = 0
    integers_db: float | None = None

    @property
    def lowest_db(self) -> float | None:
        """The lowest ratio of the whole and of its groups."""
        return min((db for db in (self.sqnr_db, *(g.sqnr_db for g in self.groups)) if db is not None), default=None)


def sqnr(signal: Array, other: Array) -> float:
    """10 log10(E[x^2] / E[(x - y)^2]) in dB, at most 200."""
    x, y = signal.astype(np.float64), other.astype(np.float64)
    noise = float(np.square(x - y).sum())
    power = float(np.square(x).sum())
    if noise == 0.0:
        return _EXACT_DB
    return float(np.clip(10.0 * np.log10(max(power, 1e-300) / noise), -_EXACT_DB, _EXACT_DB))


def finite_alike(wanted: Array, got: Array) -> bool:
    """True if two arrays of one shape are NaN, infinity and minus infinity at the same places; of integers always."""
    if not np.issubdtype(wanted.dtype, np.floating) or (np.isfinite(wanted).all() and np.isfinite(got).all()):
        return True
    return all(bool((test(wanted) == test(got)).all()) for test in (np.isnan, np.isposinf, np.isneginf))


def measure(
    pairs: Sequence[Mapping[str, Pair]], rows: Mapping[str, int], groups: Groups, scores: Mapping[str, int]
) -> tuple[OutputQuality, ...]:
    """Compare what two models answer to the same samples.

    Args:
        pairs: outputs of the float model and of the other one by name, for each sample, not finite at the same places.
        rows: the axis of selected rows along which they were matched, by output name.
        groups: channels that are looked at apart.
        scores: the axis of the classes, by name of an output that holds class scores.

    Returns:
        a quality for each output, in order.
    """
    found = []
    for name in pairs[0]:
        mine = [p[name] for p in pairs]
        alike = all(p.alike for p in mine)
        found.append(_quality(name, mine, name in rows, groups.get(name) if alike else None, scores.get(name) if alike else None))
    return tuple(found)


def _quality(
    name: str, pairs: Sequence[Pair], matched: bool, groups: tuple[int, tuple[tuple[int, int], ...]] | None, classes: int | None
) -> OutputQuality:
    unmatched = sum(p.unmatched for p in pairs)
    matched = matched or unmatched > 0
    if not np.issubdtype(pairs[0].wanted.dtype, np.floating):
        equal = _flat([(p.wanted == p.got) & p.paired for p in pairs])
        numbers = _ratio(*_numbers(pairs))
        return OutputQuality(name, None, _share(equal), rows_matched=matched, rows_unmatched=unmatched, integers_db=numbers)
    agreement = None if classes is None else _share(_flat([_same_highest(p, classes) for p in pairs]))
    axis, bounds = groups or (0, ())
    parts = tuple(_group(pairs, axis, *ends) for ends in bounds)
    return OutputQuality(name, _ratio(*_numbers(pairs)), agreement, parts, matched, unmatched)


def _numbers(pairs: Sequence[Pair]) -> tuple[Array, Array]:
    """All finite values of both sides, one behind the other."""
    wanted, got = _flat([p.wanted for p in pairs]), _flat([p.got for p in pairs])
    finite = np.isfinite(wanted)
    return wanted[finite], got[finite]


def _flat(parts: Sequence[Array]) -> Array:
    return np.concatenate([p.reshape(-1) for p in parts])


def _share(equal: Array) -> float | None:
    return float(np.mean(equal)) if equal.size else None


def _ratio(wanted: Array, got: Array) -> float | None:
    return sqnr(wanted, got) if wanted.size else None


def _same_highest(pair: Pair, classes: int) -> Array:
    if not pair.wanted.size:
        return np.zeros(0, np.bool_)
    same = pair.wanted.argmax(classes) == pair.got.argmax(classes)
    return np.asarray(same & np.broadcast_to(pair.paired, pair.wanted.shape).any(classes))


def _group(pairs: Sequence[Pair], axis: int, start: int, stop: int) -> GroupQuality:
    wanted, got = _numbers([Pair(_channels(p.wanted, axis, start, stop), _channels(p.got, axis, start, stop), p.paired) for p in pairs])
    collapsed: Literal["", "zero", "constant"] = ""
    if wanted.size and wanted.any() and not got.any():
        collapsed = "zero"
    elif wanted.size and np.ptp(wanted) > 0 and np.ptp(got) == 0:
        collapsed = "constant"
    return GroupQuality(axis, start, stop, _ratio(wanted, got), collapsed)


def _channels(x: Array, axis: int, start: int, stop: int) -> Array:
    return x.take(range(start, stop), axis=axis)
