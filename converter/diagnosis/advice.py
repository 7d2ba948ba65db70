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

_NARROW_STEPS = 8
_BULK = 0.9

Measured = Mapping[str, TensorFigures]


def advise(tensors: Sequence[TensorFigures]) -> tuple[tuple[Advice, ...], str]:
    """The ten worst with what stands out about each, and by what they were ranked.

    By what their rounding adds to the loss where the method has estimated it, else by the SQNR of their rounding alone.

    Args:
        tensors: of the whole network, in graph order.
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
    return tuple(Advice(t.name, *describe(t, known, makers)) for t in ranked[:MOST_LISTED]), ranking


def describe(tensor: TensorFigures, known: Measured, makers: Measured) -> tuple[tuple[str, ...], str]:
    """What stands out about a tensor, and what can be done.

    Args:
        tensor: with a grid.
        known: all tensors, by name.
        makers: by operator, the tensor that holds its costs.
    """
    found: list[str] = []
    do = ""
    for sentence, remedy in (_clipping(tensor), _channels(tensor), _crowding(tensor), _arriving(tensor, known)):
        if sentence:
            found.append(sentence)
            do = do or remedy
    if not found:
        found.append(_plain(tensor))
    return tuple(found), do or _keep_float(tensor, makers)


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
    own = f"where its own rounding alone would leave {t.local_db:.1f} dB"
    already = f"'{source.name}', which it is computed from, has {source.accumulated_db:.1f} dB already"
    return f"Most of its error arrives from before: it has {t.accumulated_db:.1f} dB, {own}; {already}.", ""


def _plain(t: TensorFigures) -> str:
    bits = "" if t.params is None else f" {t.params.bits} bits"
    known = "" if t.local_db is None else f": its rounding alone leaves {t.local_db:.1f} dB"
    return f"Nothing unusual about its numbers; this is what{bits} give here{known}."


def _keep_float(t: TensorFigures, makers: Measured) -> str:
    maker = makers.get(t.operator)
    if not t.operator:
        return "It is an input of the model: keep the operators float that read it (--exclude)."
    if maker is None or maker.integer_cost is None or maker.float_cost is None or t.runs != "integer":
        return f"If accuracy is short, keep the operators float that read it (--exclude); '{t.operator}' writes it."
    extra = maker.float_cost - maker.integer_cost
    price = f"costs {_count(extra)} more by the target's prices" if extra > 0 else "costs no more by the target's prices"
    return f"If accuracy is short, --exclude '{t.operator}' keeps it float, which {price}, conversions aside."


def _count(number: float) -> str:
    for size, unit in ((1e6, "million"), (1e3, "thousand")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else f"{share:.2%}"
