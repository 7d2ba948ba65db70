"""Which parts of the search are wanted: plain data, for users' switches and for the ablation: only two have a flag."""

from __future__ import annotations

from dataclasses import dataclass

from converter.flag import flag

__all__ = ["SearchParts"]


@dataclass(frozen=True)
class SearchParts:
    """Parts of ``q-hyvit``; the first three are the paper's (arXiv 2303.12557, sections 3.2 and 3.3).

    Attributes:
        granularity: offer grids per channel where they move into constants exactly.
        scheme: offer asymmetric grids beside symmetric ones for what enters layers.
        bridge: judge what lies in a bridge block by the block's output; off, as no real network shows a gain.
        range_margin: widen ranges for what calibration samples do not show.
        adaptive_rounding: round weights so that their errors make up for each other.
        weight_correction: change weights so that they make up for inputs that are off.
        bias_correction: take from biases half of what a layer's outputs are off on average.
        piecewise_linear: clamped straight lines for sigmoids, as far as the network's answer stays what it is; for
            placements that weigh speed, and not where everything runs in integer anyway.
    """

    granularity: bool = True
    scheme: bool = True
    bridge: bool = flag(False, "q-hyvit: bridge blocks judge by their output", name="--bridge-blocks")
    range_margin: bool = True
    adaptive_rounding: bool = True
    weight_correction: bool = True
    bias_correction: bool = True
    gain: bool = False
    low_rank: bool = False
    piecewise_linear: bool = flag(True, "q-hyvit: lines for some sigmoids")
