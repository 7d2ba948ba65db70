from __future__ import annotations

import pytest
import torch

from models.mobile_former import create_mobile_former
from models.mobile_former_weights import from_released, is_released

# Block 1 of the 26M network has stride 1, block 2 is strided.
PAIRS = {
    "tokens.weight": "tokens",
    "stem.0.weight": "stem.0.weight",
    "stem.1.running_mean": "stem.1.running_mean",
    "features.0.conv.0.weight": "lite.depthwise.0.weight",
    "features.0.conv.1.bias": "lite.depthwise.1.bias",
    "features.0.conv.4.weight": "lite.pointwise.0.weight",
    "features.0.conv.5.running_var": "lite.pointwise.1.running_var",
    "features.1.conv1.0.weight": "blocks.0.mobile.expand.0.weight",
    "features.1.hyper1.hyper.0.weight": "blocks.0.mobile.expand_act.squeeze.weight",
    "features.1.conv2.1.weight": "blocks.0.mobile.depthwise.1.weight",
    "features.1.hyper2.hyper.2.bias": "blocks.0.mobile.depthwise_act.slopes.bias",
    "features.1.conv3.0.weight": "blocks.0.mobile.project.0.weight",
    "features.2.conv1.0.weight": "blocks.1.mobile.depthwise.0.weight",
    "features.2.hyper1.hyper.2.weight": "blocks.1.mobile.act.slopes.weight",
    "features.2.conv2.0.weight": "blocks.1.mobile.pointwise.0.weight",
    "features.2.conv3.0.weight": "blocks.1.mobile.second_depthwise.0.weight",
    "features.2.hyper3.hyper.0.bias": "blocks.1.mobile.second_act.squeeze.bias",
    "features.2.conv4.1.bias": "blocks.1.mobile.second_pointwise.1.bias",
    "features.2.local_global.q.weight": "blocks.1.to_former.query.weight",
    "features.2.local_global.alpha.0.weight": "blocks.1.to_former.gate.weight",
    "features.2.local_global.proj.bias": "blocks.1.to_former.project.bias",
    "features.2.local_global.layer_norm.weight": "blocks.1.to_former.norm.weight",
    "features.2.global_block.q.weight": "blocks.1.former.query.weight",
    "features.2.global_block.channel_mlp.weight": "blocks.1.former.project.weight",
    "features.2.global_block.layer_norm.bias": "blocks.1.former.attention_norm.bias",
    "features.2.global_block.ffn.0.weight": "blocks.1.former.expand.weight",
    "features.2.global_block.ffn.2.bias": "blocks.1.former.contract.bias",
    "features.2.global_block.ffn_norm.weight": "blocks.1.former.ffn_norm.weight",
    "features.2.global_local.k.weight": "blocks.1.to_mobile.key.weight",
    "features.2.global_local.proj.weight": "blocks.1.to_mobile.value.weight",
    "local_global.proj.weight": "to_former.project.weight",
    "classifier.conv.1.weight": "expand.0.weight",
    "classifier.conv.2.running_mean": "expand.1.running_mean",
    "classifier.fc.0.weight": "hidden.weight",
    "classifier.fc.1.running_var": "hidden_norm.running_var",
    "classifier.classifier.1.weight": "classifier.weight",
}


def released() -> dict[str, torch.Tensor]:
    return {name: torch.tensor(float(index)) for index, name in enumerate([*PAIRS, "features.2.conv4.0.weight"])}


@pytest.mark.parametrize(("theirs", "ours"), PAIRS.items())
def test_each_kind_of_name_is_translated(theirs: str, ours: str) -> None:
    state = released()
    assert torch.equal(from_released(state)[ours], state[theirs])


def test_translated_names_exist_in_the_network() -> None:
    assert set(from_released(released())) <= set(create_mobile_former("mobile_former_26m").state_dict())


def test_only_released_weights_are_recognised() -> None:
    assert is_released(released())
    assert not is_released(create_mobile_former("mobile_former_26m").state_dict())


def test_unknown_names_are_kept_for_the_loader_to_report() -> None:
    assert "optimizer.step" in from_released({**released(), "optimizer.step": torch.zeros(())})
