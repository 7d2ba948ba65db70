"""What a diagnosis holds: plain data, which the report's page and its JSON show."""

from __future__ import annotations

from dataclasses import dataclass

from converter.quantization.parameters import QuantParams

__all__ = ["Advice", "ChannelSpread", "Diagnosis", "Histogram", "Segment", "TensorFigures"]


@dataclass(frozen=True)
class Histogram:
    """How often numbers occur, in bins of one width.

    Attributes:
        low: where the first bin begins.
        high: where the last bin ends; it holds this number too.
        counts: of each bin.
        below: how many numbers are lower.
        above: how many are higher.
    """

    low: float
    high: float
    counts: tuple[int, ...]
    below: int = 0
    above: int = 0


@dataclass(frozen=True)
class ChannelSpread:
    """How different the channels of a tensor are.

    Attributes:
        axis: of the channels.
        channels: how many there are.
        widest: the channel with the largest magnitude.
        ratio: of the largest magnitude of that channel to the median one of all channels; None where the median is zero.
    """

    axis: int
    channels: int
    widest: int
    ratio: float | None


@dataclass(frozen=True)
class TensorFigures:
    """What is known of one tensor.

    Attributes:
        name: in the canonical graph, which keeps most names of the input file.
        operator: that computes it, or whose weight it is; empty for an input of the model.
        op_type: of that operator.
        segment: index of the part of the network that the operator stands in; None for an input.
        kind: of its parameters, see :mod:`converter.plan.records`; ``weight`` for a constant that is stored as integers.
        params: quantization parameters; None in float.
        shape: on one sample.
        low: the lowest number of the calibration samples, or of the weight.
        high: the highest.
        local_db: SQNR of rounding this tensor alone, its numbers being exact; None in float.
        accumulated_db: SQNR as its readers see it, with all that stands before it quantized; None where that is not known.
        clipped: share of its numbers that lie beyond the grid, 0 to 1; None in float.
        sensitivity: what its rounding adds to the loss; None where the method did not estimate that.
        runs: how its operator runs.
        float_cost: of the operator in float, in the target's unit; None for weights, inputs, and further outputs of one operator.
        integer_cost: of the operator in integer; None also where there is no integer form.
        reason: why it, or its operator, is float; else empty.
        reads: names of the computed float tensors that the operator reads.
        histogram: of its float numbers; None where there were none.
        spread: of its channels; None where it has no more than one.
        equalization: ``applied``, ``possible`` or ``impossible``: whether a scale per channel can be folded into the neighbours.
    """

    name: str
    operator: str
    op_type: str
    segment: int | None
    kind: str
    params: QuantParams | None
    shape: tuple[int, ...]
    low: float
    high: float
    local_db: float | None
    accumulated_db: float | None
    clipped: float | None
    sensitivity: float | None
    runs: str
    float_cost: float | None
    integer_cost: float | None
    reason: str
    reads: tuple[str, ...]
    histogram: Histogram | None
    spread: ChannelSpread | None
    equalization: str = ""


@dataclass(frozen=True)
class Segment:
    """A part of the network, in the chain of all.

    Attributes:
        bridge: kind of the bridge block that it is; empty for what lies between.
        size: height and width of its maps; None where it has none.
        operators: names, in graph order.
    """

    bridge: str
    size: tuple[int, int] | None
    operators: tuple[str, ...]


@dataclass(frozen=True)
class Advice:
    """What stands out about a tensor.

    Attributes:
        tensor: its name.
        found: sentences on what the data show.
        do: what can be done, one sentence.
    """

    tensor: str
    found: tuple[str, ...]
    do: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was measured, tensor by tensor.

    Attributes:
        tensors: in graph order; inputs first, weights behind the tensors of their operator.
        segments: the network as a chain.
        worst: at most ten, the worst first.
        ranking: by what they were ranked, a clause.
        samples: on how many samples it was measured; 0 where the network cannot be simulated.
        note: why something is missing, a sentence; empty if nothing is.
    """

    tensors: tuple[TensorFigures, ...]
    segments: tuple[Segment, ...]
    worst: tuple[Advice, ...]
    ranking: str
    samples: int
    note: str = ""
