"""Diagnoses of networks of any size, made up."""

from __future__ import annotations

from converter.diagnosis.advice import advise
from converter.diagnosis.records import ChannelSpread, Diagnosis, Histogram, Segment, TensorFigures
from converter.quantization.parameters import QuantParams

__all__ = ["made_up"]

_TYPES = ("Conv", "Sigmoid", "Mul", "MatMul", "Add", "Softmax")
_OPERATORS = 25  # of a segment


def made_up(tensors: int, *, bins: int = 48, prefix: str = "/stages.0/blocks.") -> Diagnosis:
    """A chain of operators, each with one tensor: every fourth one is float, every third segment a bridge block.

    Args:
        tensors: how many.
        bins: of each histogram.
        prefix: of names.
    """
    figures = tuple(_figures(i, bins, prefix) for i in range(tensors))
    names = [t.operator for t in figures]
    segments = tuple(
        Segment("round trip" if (start // _OPERATORS) % 3 == 1 else "", (16, 16), tuple(names[start : start + _OPERATORS]))
        for start in range(0, tensors, _OPERATORS)
    )
    worst, ranking = advise(figures, "instructions")
    return Diagnosis(figures, segments, worst, ranking, 8)


def _figures(i: int, bins: int, prefix: str) -> TensorFigures:
    floats = i % 4 == 3
    return TensorFigures(
        name=f"{prefix}{i}/{_TYPES[i % 6].lower()}/{_TYPES[i % 6]}_output_0",
        operator=f"{prefix}{i}/{_TYPES[i % 6].lower()}/{_TYPES[i % 6]}",
        op_type=_TYPES[i % 6],
        segment=i // _OPERATORS,
        kind="float" if floats else "measured",
        params=None if floats else QuantParams((0.03,), (i % 100 - 50,), 8, True),
        shape=(1, 64, 16, 16),
        low=-3.0 - i % 5,
        high=3.0 + i % 7,
        local_db=None if floats else 20.0 + (i * 37 % 300) / 10,
        accumulated_db=10.0 + (i * 53 % 350) / 10,
        clipped=None if floats else (i % 3) * 0.004,
        sensitivity=None if floats else 1e-4 / (1 + i),
        runs="float" if floats else "integer",
        float_cost=1234.5 * (i + 1),
        integer_cost=None if floats else 456.7 * (i + 1),
        reason="cheaper in float on this target, given its neighbours" if floats else "",
        reads=(),
        histogram=Histogram(-7.0, 9.0, tuple((i * 7919 + b * b * 104729) % 50000 for b in range(bins)), i % 2, 0),
        spread=ChannelSpread(1, 64, i % 64, 1.0 + i % 50),
        equalization="impossible",
    )
