"""The planning methods by name.

A method sees numbers and nothing else: what was observed of each tensor, each constant operand, and how many bits
there are. It knows neither ONNX nor the target. A new method is one file in :mod:`converter.methods` and one entry here.
"""

from __future__ import annotations

from converter.methods.protocol import Method
from converter.methods.published import easyquant, fq_vit, ptq4vit, repq_vit
from converter.methods.q_hyvit import method as q_hyvit
from converter.methods.q_hyvit.sigmoid_search import choose_approximations
from converter.methods.ranges import minmax, mse, percentile

__all__ = ["METHODS"]

METHODS: dict[str, Method] = {
    "minmax": Method(minmax.choose),
    "percentile": Method(percentile.choose),
    "mse": Method(mse.choose),
    "easyquant": Method(easyquant.choose, needs_context=True),
    "fq-vit": Method(fq_vit.choose, (fq_vit.quantizers,), needs_context=True, keeps_normalizations=True, keeps_softmaxes=True),
    "ptq4vit": Method(ptq4vit.choose, (ptq4vit.quantizers,), needs_context=True, keeps_softmaxes=True),
    "repq-vit": Method(
        repq_vit.choose, (repq_vit.equalization, repq_vit.quantizers), needs_context=True, keeps_normalizations=True, keeps_softmaxes=True
    ),
    "q-hyvit": Method(
        q_hyvit.choose, (q_hyvit.equalization,), choose_approximations, q_hyvit.refine, needs_context=True, shares=q_hyvit.SHARES
    ),
}
