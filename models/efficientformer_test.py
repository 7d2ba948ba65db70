from __future__ import annotations

import pytest
import timm
import torch
from timm.models.efficientformer import Attention

from models.efficientformer import create_efficientformer

NAME = "efficientformer_l1"


def attentions(model: torch.nn.Module) -> list[Attention]:
    return [module for module in model.modules() if isinstance(module, Attention)]


def test_state_dict_at_224_pixels_is_that_of_timm() -> None:
    ours, theirs = create_efficientformer(NAME, classes=10, size=224), timm.create_model(NAME, num_classes=10)
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours.eval()(image), theirs.eval()(image))


@pytest.mark.parametrize(("size", "resolution"), [(64, 2), (96, 3), (100, 4), (256, 8)])
def test_position_biases_follow_the_size(size: int, resolution: int) -> None:
    model = create_efficientformer(NAME, classes=10, size=size)
    shapes = {(tuple(a.attention_biases.shape), tuple(a.attention_bias_idxs.shape)) for a in attentions(model)}
    assert shapes == {((8, resolution**2), (resolution**2, resolution**2))}
    assert model.eval()(torch.zeros(1, 3, size, size)).shape == (1, 10)


def test_pairs_of_equal_distance_share_a_bias() -> None:
    index = attentions(create_efficientformer(NAME, classes=10, size=64))[0].attention_bias_idxs
    assert index.tolist() == [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]


def test_position_biases_are_trained() -> None:
    model = create_efficientformer(NAME, classes=10, size=64).train()
    model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert all(a.attention_biases.grad is not None and a.attention_biases.grad.any() for a in attentions(model))


def test_timm_itself_is_left_alone() -> None:
    create_efficientformer(NAME, classes=10, size=64)
    assert {tuple(a.attention_biases.shape) for a in attentions(timm.create_model(NAME))} == {(8, 49)}
