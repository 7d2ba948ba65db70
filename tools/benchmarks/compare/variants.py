"""What a column of the comparison stands for: a method, perhaps with parts of its search left out, and a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from converter.methods.search_parts import SearchParts

__all__ = ["Variant", "ablation", "plain", "seed_ending"]


@dataclass(frozen=True)
class Variant:
    """How to convert: a method or another tool; ``full`` quantizes what all operators read and write."""

    method: str
    seed: int = 0
    full: bool = False
    parts: SearchParts = field(default_factory=SearchParts)


def seed_ending(seed: int) -> str:
    """What a column's name ends with: nothing for the usual seed 0."""
    return f" seed {seed}" if seed else ""


def plain(methods: Sequence[str], seeds: Sequence[int], *, full: bool = False) -> dict[str, Variant]:
    """Methods as they are, by name; the name says if all is quantized, and which seed unless it is the usual 0."""
    return {f"{m}{' full' if full else ''}{seed_ending(s)}": Variant(m, s, full) for m in methods for s in seeds}


def ablation(seed: int) -> dict[str, Variant]:
    """The parts of ``q-hyvit`` one after the other, as in the paper's ablation (arXiv 2303.12557), and then what is beyond it.

    Piecewise-linear sigmoids are left out: they are for speed.
    """
    parts = SearchParts(**{f.name: False for f in fields(SearchParts)})
    steps = {"scale": parts}
    for label, switch in {
        "+ granularity": "granularity",
        "+ scheme": "scheme",
        "+ bridge": "bridge",
        "+ range margin": "range_margin",
        "+ rounding": "adaptive_rounding",
        "+ bias correction": "bias_correction",
        "+ weight correction": "weight_correction",
    }.items():
        parts = replace(parts, **{switch: True})
        steps[label] = parts
    return {label: Variant("q-hyvit", seed, parts=parts) for label, parts in steps.items()}
