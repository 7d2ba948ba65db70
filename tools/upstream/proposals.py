"""What we propose to ONNX Runtime: which models show it, and how few instructions they could take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tools.upstream import bounds
from tools.upstream.models import CASES, Case, amount, depth

__all__ = ["PROPOSALS", "Proposal"]


@dataclass(frozen=True)
class Proposal:
    """One change.

    Attributes:
        name: in tables.
        title: what the change is.
        cases: models that it makes cheaper, then those beside them, which do the same in a form that the runtime has.
        bound: instructions that a case could take for what it is counted by; None for a case beside.
        reason: where the bound comes from.
    """

    name: str
    title: str
    cases: tuple[Case, ...]
    bound: Callable[[Case], float | None]
    reason: str


def _cases(*names: str) -> tuple[Case, ...]:
    return tuple(case for case in CASES if case.name in names)


def _outputs(case: Case) -> float:
    return amount(case) / depth(case)


def _product(case: Case) -> float:
    in_float = case.probe.op_type != "Conv"
    return bounds.product(amount(case), _outputs(case), in_float=in_float) / amount(case)


def _stem(case: Case) -> float:
    channels, rows, columns = case.probe.constants[0][1:]
    places = _outputs(case) / case.probe.constants[0][0]
    unfolded = bounds.unfolded(places, rows, columns * channels) if rows > 1 else 0.0
    return _product(case) + unfolded / amount(case)


def _only(bound: float, *names: str) -> Callable[[Case], float | None]:
    return lambda case: bound if case.name in names else None


_TILE = "a tile of 4 x 16 sums: 86 instructions for 1024 multiply-accumulates, and for each sum 1.625 to become a code"
_IN_FLOAT = "the same tile, and for each sum 0.875 to become a float"

PROPOSALS: tuple[Proposal, ...] = (
    Proposal(
        "requantization",
        "requantization in the kernels of convolutions",
        _cases("conv_1x1_48", "conv_1x1_128", "conv_1x2_64", "conv_3x3_48", "conv_3x3_64"),
        _product,
        _TILE,
    ),
    Proposal(
        "table",
        "a table operator on codes",
        _cases("sigmoid", "silu", "relu"),
        _only(bounds.TABLE, "sigmoid", "silu"),
        "TBL and TBX over 256 codes in 16 registers: 11 instructions for 16 codes, whatever the function",
    ),
    Proposal(
        "stem",
        "stems of few channels, channels last",
        _cases("stem", "stem_unfolded"),
        _stem,
        f"{_TILE}, and for each place and row of the kernel one load, one store, one addition to unfold",
    ),
    Proposal("scores", "Q K^T and P V with small K", _cases("scores_16", "scores_32", "scores_64"), _product, _IN_FLOAT),
    Proposal("linear", "linear layers in the kernel of convolutions", _cases("linear", "linear_as_conv"), _product, _IN_FLOAT),
    Proposal(
        "quantize",
        "QuantizeLinear, 16 numbers at a time",
        _cases("quantize"),
        _only(bounds.QUANTIZED, "quantize"),
        "21 instructions for 16 numbers",
    ),
    Proposal(
        "softmax",
        "QLinearSoftmax in vector instructions",
        _cases("softmax", "softmax_codes"),
        _only(bounds.SOFTMAX, "softmax", "softmax_codes"),
        "65 instructions for 16 numbers, with exponentials of 16 bits from two tables",
    ),
    Proposal(
        "layer_norm",
        "normalizations in vector instructions",
        _cases("layer_norm", "instance_norm"),
        _only(bounds.NORMALIZED, "layer_norm"),
        "30 instructions for 16 numbers, in two passes",
    ),
)
