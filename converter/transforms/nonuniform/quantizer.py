"""Grids that are not uniform, as plain data, and where they can stand.

A uniform grid belongs to a tensor and lets operators run in integer. What is here is written as float operators of its
own in front of its reader (:mod:`converter.transforms.nonuniform.apply`), except for the twin grid, which is two uniform ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from converter.quantization.parameters import QuantParams

__all__ = ["KINDS", "NonuniformQuantizer", "QuantizerKind", "QuantizerSite", "SiteKind", "check_quantizer", "halves", "low_copy"]

QuantizerKind = Literal["log2", "log-sqrt2", "log-int-softmax", "twin", "power-of-two"]
"""log2, log-sqrt2: scale * b ** -n, b being 2 or its root. log-int-softmax: a softmax by integer exponentials, onto log2.
twin: one uniform grid below a bound and one from it on. power-of-two: uniform, with the last axis' scales a power of two apart.
"""

SiteKind = Literal["attention", "gelu", "normalization", "normalized"]

KINDS: Mapping[SiteKind, tuple[QuantizerKind, ...]] = {
    "attention": ("log2", "log-sqrt2", "log-int-softmax", "twin"),
    "gelu": ("twin",),
    "normalization": ("power-of-two",),
    "normalized": (),
}
"""What can stand where."""


@dataclass(frozen=True)
class NonuniformQuantizer:
    """A grid and where it stands.

    Attributes:
        kind: see :data:`QuantizerKind`.
        bits: of the codes of a logarithmic grid.
        scale: what code 0 of a logarithmic grid stands for.
        bound: of a twin grid.
        grid: of the last axis (power-of-two), or of the scores (log-int-softmax); else None.
        partner: of what is multiplied with numbers on a logarithmic grid; None to leave that as it is.
    """

    kind: QuantizerKind
    bits: int = 8
    scale: float = 1.0
    bound: float = 0.0
    params: QuantParams | None = None
    partner: QuantParams | None = None


@dataclass(frozen=True)
class QuantizerSite:
    """Where a grid that is not uniform can stand.

    Attributes:
        kind: attention: the output of a softmax enters a product of two computed tensors. gelu: that of a GELU enters layers
            with weights. normalization: the tensor is the input of a layer normalization over its last axis. normalized: it is
            the output of one and enters layers with weights.
        tensor: what is read.
        readers: (operator, input index) of those who read it there; one for attention.
        partner: attention: the other operand of the product.
        scores: attention: what the softmax reads.
    """

    kind: SiteKind
    tensor: str
    readers: tuple[tuple[str, int], ...]
    partner: str = ""
    scores: str = ""


def halves(tensor: str) -> tuple[str, str]:
    """Names of what of a tensor lies below the bound of its twin grid, and of the rest."""
    return f"{tensor}_twin_low", f"{tensor}_twin_high"


def low_copy(operator: str) -> str:
    """Name of the copy of an operator that reads the lower half; the operator itself goes on to read the upper one."""
    return f"{operator}_twin_low"


def check_quantizer(quantizer: NonuniformQuantizer, quantizer_site: QuantizerSite) -> None:
    """Refuse a grid that does not fit its site.

    Raises:
        ValueError: says what is wrong with which tensor.
    """
    what = f"the {quantizer.kind} grid of '{quantizer_site.tensor}'"
    if quantizer.kind not in KINDS[quantizer_site.kind]:
        raise ValueError(f"{what} cannot stand there")
    if not 1 <= quantizer.bits <= 8:
        raise ValueError(f"{what} has {quantizer.bits} bits")
    if not (math.isfinite(quantizer.scale) and quantizer.scale > 0.0 and math.isfinite(quantizer.bound)):
        raise ValueError(f"{what} has a scale or bound that is not a number of use")
    wanted = {"power-of-two": "one scale per channel", "log-int-softmax": "one scale"}.get(quantizer.kind, "")
    if bool(wanted) != (quantizer.params is not None) or (
        quantizer.params is not None and (quantizer.params.axis is None) != (wanted == "one scale")
    ):
        raise ValueError(f"{what} needs {f'a grid with {wanted}' if wanted else 'no other grid'}")
    if quantizer.partner is not None and (not quantizer.kind.startswith("log") or quantizer.partner.axis is not None):
        raise ValueError(f"{what} has a grid for a partner that cannot have one")
