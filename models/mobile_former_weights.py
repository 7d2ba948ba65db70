"""Parameter names of the weights released with the Mobile-Former paper, translated into ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

__all__ = ["from_released", "is_released"]

_TELLTALE = "features.0.conv.0.weight"

# Tried in order on every name; the first that matches the whole beginning of the name is applied, and then the rules of
# the second table on what follows the block's number. Block 0 of the release is the lite bottleneck.
_NETWORK = (
    (r"tokens\.weight$", "tokens"),
    (r"features\.0\.conv\.([01])\.", r"lite.depthwise.\1."),
    (r"features\.0\.conv\.4\.", "lite.pointwise.0."),
    (r"features\.0\.conv\.5\.", "lite.pointwise.1."),
    (r"local_global\.", "to_former."),
    (r"classifier\.conv\.1\.", "expand.0."),
    (r"classifier\.conv\.2\.", "expand.1."),
    (r"classifier\.fc\.0\.", "hidden."),
    (r"classifier\.fc\.1\.", "hidden_norm."),
    (r"classifier\.classifier\.1\.", "classifier."),
)
_BRIDGES = (
    (r"\blocal_global\.", "to_former."),
    (r"\bglobal_block\.q\.", "former.query."),
    (r"\bglobal_block\.channel_mlp\.", "former.project."),
    (r"\bglobal_block\.layer_norm\.", "former.attention_norm."),
    (r"\bglobal_block\.ffn\.0\.", "former.expand."),
    (r"\bglobal_block\.ffn\.2\.", "former.contract."),
    (r"\bglobal_block\.ffn_norm\.", "former.ffn_norm."),
    (r"\bglobal_local\.k\.", "to_mobile.key."),
    (r"\bglobal_local\.proj\.", "to_mobile.value."),
    (r"\bto_former\.q\.", "to_former.query."),
    (r"\bto_former\.alpha\.0\.", "to_former.gate."),
    (r"\bto_former\.proj\.", "to_former.project."),
    (r"\bto_former\.layer_norm\.", "to_former.norm."),
)
_MOBILE = {
    False: (("conv1", "expand"), ("hyper1", "expand_act"), ("conv2", "depthwise"), ("hyper2", "depthwise_act"), ("conv3", "project")),
    True: (
        *(("conv1", "depthwise"), ("hyper1", "act"), ("conv2", "pointwise")),
        *(("conv3", "second_depthwise"), ("hyper3", "second_act"), ("conv4", "second_pointwise")),
    ),
}
"""Sub-modules of a Mobile sub-block of stride 1 and of a strided one."""


def is_released(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether the names are those of the released weights."""
    return _TELLTALE in state


def from_released(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the entries of a released state dict; names without a rule are kept, for the loader to complain about."""
    strided = {name.split(".")[1] for name in state if re.match(r"features\.\d+\.conv4\.", name)}
    return {_rename(name, strided): tensor for name, tensor in state.items()}


def _rename(name: str, strided: set[str]) -> str:
    for pattern, ours in _NETWORK:
        name, replaced = re.subn("^" + pattern, ours, name)
        if replaced:
            break
    if block := re.match(r"features\.(\d+)\.", name):
        rest = name[block.end() :]
        for theirs, ours in _MOBILE[block[1] in strided]:
            rest = re.sub(rf"^{theirs}\.", f"mobile.{ours}.", rest)
        rest = rest.replace("_act.hyper.0.", "_act.squeeze.").replace("_act.hyper.2.", "_act.slopes.")
        rest = rest.replace("mobile.act.hyper.0.", "mobile.act.squeeze.").replace("mobile.act.hyper.2.", "mobile.act.slopes.")
        name = f"blocks.{int(block[1]) - 1}.{rest}"
    for pattern, ours in _BRIDGES:
        name = re.sub(pattern, ours, name)
    return name
