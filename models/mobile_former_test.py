from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from models.mobile_former import VARIANTS, create_mobile_former
from models.mobile_former_blocks import ChannelShuffle, DynamicReLU, Former, FormerToMobile, MobileToFormer


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def heads(z: torch.Tensor, count: int) -> torch.Tensor:
    return torch.stack(z.chunk(count, dim=-1), dim=1)


@pytest.mark.parametrize("name", ["mobile_former_26m", "mobile_former_96m"])
@pytest.mark.parametrize("shape", [(64, 64), (224, 224), (96, 32)])
def test_output_has_one_row_of_logits_per_image(name: str, shape: tuple[int, int]) -> None:
    model = create_mobile_former(name, classes=7).eval()
    assert model(noise(2, 3, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains_at_64_pixels(name: str) -> None:
    model = create_mobile_former(name, classes=10).train()
    assert torch.isfinite(model(noise(2, 3, 64, 64))).all()


@pytest.mark.parametrize("name", ["mobile_former_26m", "mobile_former_151m"])
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = create_mobile_former(name, classes=10).train()
    functional.cross_entropy(model(noise(4, 3, 64, 64)), torch.tensor([1, 2, 3, 4])).backward()  # type: ignore[no-untyped-call]
    starved = [key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert starved == []


def test_images_of_a_batch_do_not_influence_each_other() -> None:
    model = create_mobile_former("mobile_former_26m", classes=10).eval()
    images = noise(3, 3, 64, 64)
    together, alone = model(images), torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(together[0], together[1], rtol=1e-3, atol=0)


def test_memory_layout_does_not_matter() -> None:
    model = create_mobile_former("mobile_former_26m", classes=10).eval()
    images = noise(2, 3, 64, 64)
    plain = model(images)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images.contiguous(memory_format=torch.channels_last)), plain, rtol=1e-4, atol=1e-6)


def test_unknown_variant_is_named() -> None:
    with pytest.raises(ValueError, match="mobile_former_1m"):
        create_mobile_former("mobile_former_1m")


def test_dynamic_relu_without_slopes_is_a_relu() -> None:
    act = DynamicReLU(6, 16)
    torch.nn.init.zeros_(act.slopes.weight)
    torch.nn.init.zeros_(act.slopes.bias)
    x = noise(2, 6, 4, 4)
    torch.testing.assert_close(act(x, noise(2, 16)), x.relu())


def test_dynamic_relu_slopes_follow_the_token() -> None:
    """With saturated slopes a1 = 2, a2 = 1 for one sign of the bias and a1 = 0, a2 = -1 for the other."""
    act = DynamicReLU(6, 16)
    torch.nn.init.zeros_(act.slopes.weight)
    x = noise(2, 6, 4, 4)
    torch.nn.init.constant_(act.slopes.bias, 10.0)
    torch.testing.assert_close(act(x, noise(2, 16)), torch.maximum(2 * x, x))
    torch.nn.init.constant_(act.slopes.bias, -10.0)
    torch.testing.assert_close(act(x, noise(2, 16)), torch.maximum(0 * x, -x))


@given(groups=st.integers(1, 6), members=st.integers(1, 6))
def test_shuffling_by_groups_then_by_members_restores_the_order(groups: int, members: int) -> None:
    channels = groups * members
    x = torch.arange(channels, dtype=torch.float32).reshape(1, channels, 1, 1).expand(2, channels, 3, 2)
    shuffled = ChannelShuffle(channels, groups)(x)
    assert shuffled[0, :groups, 0, 0].tolist() == [float(group * members) for group in range(groups)]
    assert torch.equal(ChannelShuffle(channels, members)(shuffled), x)


def test_mobile_to_former_is_gated_two_head_attention_over_the_raw_map() -> None:
    bridge = MobileToFormer(8, 16)
    x, z = noise(2, 8, 3, 5), noise(2, 4, 16)
    pixels = heads(x.flatten(2).transpose(1, 2), 2)
    seen = functional.scaled_dot_product_attention(heads(bridge.query(z), 2), pixels, pixels)
    gated = torch.cat(tuple(seen.unbind(1)), dim=-1) * (2 * functional.hardsigmoid(bridge.gate(z)))
    torch.testing.assert_close(bridge(x, z), bridge.norm(z + bridge.project(gated)))


def test_former_to_mobile_is_two_head_attention_of_the_raw_map_over_tokens() -> None:
    bridge = FormerToMobile(8, 16)
    x, z = noise(2, 8, 3, 5), noise(2, 4, 16)
    queries = heads(x.flatten(2).transpose(1, 2), 2)
    answer = functional.scaled_dot_product_attention(queries, heads(bridge.key(z), 2), heads(bridge.value(z), 2))
    merged = torch.cat(tuple(answer.unbind(1)), dim=-1).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(bridge(x, z), x + merged)


def test_former_is_post_normalised_four_head_attention_and_feed_forward() -> None:
    former = Former(16)
    z = noise(2, 3, 16)
    tokens = heads(z, 4)
    seen = functional.scaled_dot_product_attention(heads(former.query(z), 4), tokens, tokens)
    attended = former.attention_norm(z + former.project(torch.cat(tuple(seen.unbind(1)), dim=-1)))
    expected = former.ffn_norm(attended + former.contract(functional.gelu(former.expand(attended))))
    torch.testing.assert_close(former(z), expected)
