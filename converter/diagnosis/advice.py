"""What to say of the tensors whose rounding does most harm: sentences, each derived from a measured number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from converter.diagnosis.records import Advice, Histogram, TensorFigures

__all__ = ["MOST_LISTED", "advise", "describe"]

MOST_LISTED = 10

_WIDE = 8.0
"""Times the median channel from which one is worth a sentence: three of eight bits are then lost to half of the channels."""

_CLIPPED = 0.0005
_BURIED_DB = 6.0
"""The error that arrives is four times that of the tensor's own rounding."""

_ENLARGED_DB = 3.0
"""A tensor that has so much less than what it is computed from got as much error from its operator as from there."""

_MOST_EXCLUDED = 6
"""Operators that one sentence can name."""

_NARROW_STEPS = 8
_BULK = 0.9

Measured = Mapping[str, TensorFigures]


def advise(tensors: Sequence[TensorFigures], unit: str) -> tuple[tuple[Advice, ...], str]:
    """The ten worst with what stands out about each, and by what they were ranked.

    By what their rounding adds to the loss where the method has estimated it, else by the SQNR of their rounding alone.

    Args:
        tensors: of the whole network, in graph order.
        unit: of costs.
    """
    known = {t.name: t for t in tensors}
    harmful = [t for t in tensors if (t.sensitivity or 0.0) > 0.0]
    if harmful:
        ranked = sorted(harmful, key=lambda t: -(t.sensitivity or 0.0))
        ranking = "by what their rounding adds to the loss"
    else:
        rounded = [t for t in tensors if t.local_db is not None and t.kind in ("measured", "fixed", "weight")]
        ranked = sorted(rounded, key=lambda t: t.local_db or 0.0)
        ranking = "by the SQNR of their rounding alone"
    makers = {t.operator: t for t in tensors if t.float_cost is not None}
    return tuple(Advice(t.name, *describe(t, known, makers, unit)) for t in ranked[:MOST_LISTED]), ranking


def describe(tensor: TensorFigures, known: Measured, makers: Measured, unit: str) -> tuple[tuple[str, ...], str]:
    """What stands out about a tensor, and what can be done.

    Args:
        tensor: with a grid.
        known: all tensors, by name.
        makers: by operator, the tensor that holds its costs.
        unit: of costs.
    """
    found: list[str] = []
    do = ""
    for sentence, remedy in (_clipping(tensor), _channels(tensor), _crowding(tensor), _arriving(tensor, known)):
        if sentence:
            found.append(sentence)
            do = do or remedy
    if not found:
        found.append(_plain(tensor))
    return tuple(found), do or _keep_float(tensor, known, makers, unit)


def _clipping(t: TensorFigures) -> tuple[str, str]:
    if t.clipped is None or t.clipped < _CLIPPED or t.params is None:
        return "", ""
    if t.params.axis is not None:
        ends = "each at an end of the range of its channel"
        return f"{_percent(t.clipped)} of its numbers are clipped, {ends}. Finer steps for the rest were worth more to the method.", ""
    ends = f"the codes reach from {t.params.lowest:.3g} to {t.params.highest:.3g}, calibration saw {t.low:.3g} to {t.high:.3g}"
    beyond = 0 if t.histogram is None else t.histogram.below + t.histogram.above
    sentence = f"{_percent(t.clipped)} of its numbers are clipped: {ends}."
    if beyond and t.low >= t.params.lowest and t.high <= t.params.highest:
        return sentence, "Calibrate on more, or more varied, samples (--samples, --calib): these reach further than those did."
    return f"{sentence} Finer steps for the rest were worth more to the method.", ""


def _channels(t: TensorFigures) -> tuple[str, str]:
    spread = t.spread
    if spread is None or spread.ratio is None or spread.ratio < _WIDE or t.kind == "weight":
        return "", ""
    head = (
        f"Channel {spread.widest} is {spread.ratio:.0f} times wider than the median of {spread.channels} channels, and all share one scale"
    )
    if t.equalization == "applied":
        return f"{head}, although they were equalized already (scales moved into the operators around).", ""
    if t.equalization == "possible":
        return f"{head}; they could be equalized, which the method found no gain in.", ""
    if t.equalization == "impossible":
        return f"{head}; they cannot be equalized, as the operators around cannot all take a scale per channel exactly.", ""
    return f"{head}.", ""


def _crowding(t: TensorFigures) -> tuple[str, str]:
    """Most numbers lie on a few steps, because few large ones set the range."""
    if t.histogram is None or t.params is None or t.params.axis is not None or t.kind == "weight":
        return "", ""
    width = _bulk_width(t.histogram)
    steps = max(1, round(width / t.params.scale[0]))
    levels = t.params.qmax - t.params.qmin + 1
    if steps > _NARROW_STEPS * levels / 256:
        return "", ""
    return f"{_BULK:.0%} of its numbers lie on about {steps} of its {levels} steps, as few large numbers set the range.", ""


def _bulk_width(histogram: Histogram) -> float:
    """Width of the narrowest run of bins that holds 90 % of the numbers."""
    counts = histogram.counts
    need, best = _BULK * sum(counts), len(counts)
    left, held = 0, 0
    for right, count in enumerate(counts):
        held += count
        while held - counts[left] >= need:
            held -= counts[left]
            left += 1
        if held >= need:
            best = min(best, right - left + 1)
    return best * (histogram.high - histogram.low) / len(counts)


def _arriving(t: TensorFigures, known: Measured) -> tuple[str, str]:
    if t.local_db is None or t.accumulated_db is None or t.accumulated_db > t.local_db - _BURIED_DB:
        return "", ""
    before = [known[name] for name in t.reads if name in known and known[name].accumulated_db is not None]
    if not before:
        return "", ""
    source = min(before, key=lambda b: b.accumulated_db or 0.0)
    own = f"it has {t.accumulated_db:.1f} dB, where its own rounding alone would leave {t.local_db:.1f} dB"
    read = f"'{source.name}', which it is computed from, has {source.accumulated_db:.1f} dB"
    if (source.accumulated_db or 0.0) < t.accumulated_db + _ENLARGED_DB:
        return f"Most of its error arrives from before: {own}; {read} already.", ""
    rounded = any(w.kind == "weight" and w.operator == t.operator for w in known.values())
    cause = "its rounded weights add to the error" if rounded else f"{t.op_type} makes the error larger beside the numbers themselves"
    return f"Most of its error is not its own rounding's: {own}; {read}: {cause}.", ""


def _plain(t: TensorFigures) -> str:
    if t.kind == "weight" and t.local_db is not None:
        moved = "a method may move them off the nearest ones, where that brings the outputs of its layer closer to float"
        return f"Its integers are {t.local_db:.1f} dB from its numbers; {moved}."
    bits = "" if t.params is None else f" {t.params.bits} bits"
    known = "" if t.local_db is None else f": its rounding alone leaves {t.local_db:.1f} dB"
    return f"Nothing unusual about its numbers; this is what{bits} give here{known}."


def _keep_float(t: TensorFigures, known: Measured, makers: Measured, unit: str) -> str:
    """A tensor is float only if what writes it and all that reads it is."""
    around = [t.operator] if t.kind == "weight" else list(dict.fromkeys([t.operator, *_readers(t, known)]))
    integer = [name for name in around if name and name in makers and makers[name].runs != "float"]
    if not integer:
        return "No operator around it runs in integer: it is rounded where it is handed on."
    flags = " ".join(f"--exclude '{name}'" for name in integer)
    if len(integer) > _MOST_EXCLUDED:
        flags = f"--exclude for each of the {len(integer)} operators that write and read it in integer"
    elif len(integer) > 1:
        flags += ", which write and read it in integer"
    return f"If accuracy is short, keep it float with {flags}: {_price(integer, makers, unit)}, not counting conversions."


def _readers(t: TensorFigures, known: Measured) -> list[str]:
    """Operators that read a tensor, and behind those that only move its numbers, the readers of what they make."""
    found: list[str] = []
    waiting, seen = [t.name], {t.name}
    while waiting:
        name = waiting.pop(0)
        for other in known.values():
            if name in other.reads:
                found.append(other.operator)
                if other.kind == "shared" and other.name not in seen:
                    seen.add(other.name)
                    waiting.append(other.name)
    return found


def _price(operators: Sequence[str], makers: Measured, unit: str) -> str:
    """What operators cost more in float than in integer; those that have no integer form of their own cost the same."""
    extra = 0.0
    for maker in (makers[name] for name in operators):
        if maker.integer_cost is not None and maker.float_cost is not None:
            extra += maker.float_cost - maker.integer_cost
    return f"{_count(extra)} {unit} more" if extra > 0 else f"no more {unit}"


def _count(number: float) -> str:
    for size, unit in ((1e6, "million"), (1e3, "thousand")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else f"{share:.2%}"
