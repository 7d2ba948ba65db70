"""Building blocks of Mobile-Former (arXiv 2108.05895, section 3): two parallel branches and the bridges between them.

A feature map ``x`` [N, C, H, W] is processed by the Mobile sub-block, a handful of tokens ``z`` [N, T, D] by the
Former sub-block. One block runs in this order (figure 3 of the paper): Mobile->Former, Former, Mobile, Former->Mobile.

Where the text of the paper leaves a choice open, the choice is the one that reproduces its parameter counts:

* the Former's attention has a query and an output projection only, its keys and values are the tokens themselves
  (projecting them too would put the 26M network 8 % above the published count);
* the result of Mobile->Former is gated per channel before its output projection (equation 1 shows no gate; without it
  the 508M network would have 13.7 M parameters instead of 14.0 M).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = [
    "ChannelShuffle",
    "DownsamplingMobile",
    "DynamicReLU",
    "Former",
    "FormerToMobile",
    "LiteBottleneck",
    "Mobile",
    "MobileFormerBlock",
    "MobileToFormer",
    "conv_norm",
]

_BRIDGE_HEADS = 2
_FORMER_HEADS = 4
_FFN_EXPANSION = 2
_SLOPE_REDUCTION = 4


class ChannelShuffle(nn.Module):
    """Interleave the channels of ``groups`` groups, so that the next grouped convolution sees all of them."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.channels, self.groups = channels, groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to [N, C, H, W]."""
        _, _, height, width = x.shape
        grouped = x.reshape(-1, self.groups, self.channels // self.groups, height, width)
        return grouped.transpose(1, 2).reshape(-1, self.channels, height, width)


def conv_norm(channels_in: int, channels_out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, padded to keep the size at stride 1, and batch normalisation."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out))


def _shuffle(channels: int, shuffled: int, groups: int) -> nn.Module:
    """Shuffle in ``shuffled`` groups if the pointwise convolutions have ``groups`` of them; do nothing at one group."""
    return ChannelShuffle(channels, shuffled) if groups > 1 else nn.Identity()


class DynamicReLU(nn.Module):
    """max(a1 x, a2 x) with both slopes, per channel, computed from the first token (section 3.2, Mobile).

    The slopes are a1 = 2 s1 and a2 = 2 s2 - 1 with s from a hard sigmoid: at s = 1/2 this is the ordinary ReLU.
    """

    def __init__(self, channels: int, token_width: int) -> None:
        super().__init__()
        self.channels = channels
        self.squeeze = nn.Linear(token_width, token_width // _SLOPE_REDUCTION)
        self.slopes = nn.Linear(token_width // _SLOPE_REDUCTION, 2 * channels)

    def forward(self, x: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """Map x [N, C, H, W] by token [N, D] to [N, C, H, W]."""
        shares = functional.hardsigmoid(self.slopes(functional.relu(self.squeeze(token))))
        first, second = torch.split(shares.reshape(-1, 2 * self.channels, 1, 1), self.channels, dim=1)
        return torch.maximum(x * (2.0 * first), x * (2.0 * second - 1.0))


class LiteBottleneck(nn.Module):
    """Expanding depthwise and linear pointwise convolution behind the stem; no tokens (table 1, "bneck-lite")."""

    def __init__(self, channels_in: int, channels_out: int, *, expansion: int, stride: int, groups: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.depthwise = conv_norm(channels_in, hidden, kernel=3, stride=stride, groups=channels_in)
        self.shuffle = _shuffle(hidden, channels_in, groups)
        self.pointwise = conv_norm(hidden, channels_out, groups=groups)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to [N, C', H/stride, W/stride]."""
        y: torch.Tensor = self.pointwise(self.shuffle(functional.relu6(self.depthwise(x))))
        return x + y if self.residual else y


class Mobile(nn.Module):
    """Mobile sub-block: inverted bottleneck of stride 1 whose two activations follow the first token."""

    def __init__(self, channels_in: int, channels_out: int, token_width: int, *, expansion: int, groups: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.expand = conv_norm(channels_in, hidden, groups=groups)
        self.expand_shuffle = _shuffle(hidden, groups, groups)
        self.expand_act = DynamicReLU(hidden, token_width)
        self.depthwise = conv_norm(hidden, hidden, kernel=3, groups=hidden)
        self.depthwise_act = DynamicReLU(hidden, token_width)
        self.project = conv_norm(hidden, channels_out, groups=groups)
        self.project_shuffle = _shuffle(channels_out, groups, groups)
        self.residual = channels_in == channels_out

    def forward(self, x: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """Map x [N, C, H, W] with token [N, D] to [N, C', H, W]."""
        hidden = self.expand_act(self.expand_shuffle(self.expand(x)), token)
        hidden = self.depthwise_act(self.depthwise(hidden), token)
        y: torch.Tensor = self.project_shuffle(self.project(hidden))
        return x + y if self.residual else y


class DownsamplingMobile(nn.Module):
    """Mobile sub-block of a strided block: two pairs of expanding depthwise and linear pointwise convolution."""

    def __init__(
        self, channels_in: int, channels_out: int, token_width: int, *, expansion: int, second_expansion: int, groups: int
    ) -> None:
        super().__init__()
        hidden, second_hidden = channels_in * expansion, channels_out * second_expansion
        self.depthwise = conv_norm(channels_in, hidden, kernel=3, stride=2, groups=channels_in)
        self.shuffle = _shuffle(hidden, channels_in, groups)
        self.act = DynamicReLU(hidden, token_width)
        self.pointwise = conv_norm(hidden, channels_out, groups=groups)
        self.second_depthwise = conv_norm(channels_out, second_hidden, kernel=3, groups=channels_out)
        self.second_shuffle = _shuffle(second_hidden, channels_out, groups)
        self.second_act = DynamicReLU(second_hidden, token_width)
        self.second_pointwise = conv_norm(second_hidden, channels_out, groups=groups)

    def forward(self, x: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """Map x [N, C, H, W] with token [N, D] to [N, C', H/2, W/2]."""
        x = self.pointwise(self.act(self.shuffle(self.depthwise(x)), token))
        y: torch.Tensor = self.second_pointwise(self.second_act(self.second_shuffle(self.second_depthwise(x)), token))
        return x + y


def _split_map(x: torch.Tensor, channels: int) -> torch.Tensor:
    """[N, C, H, W] to [N, heads, C / heads, H W]."""
    _, _, height, width = x.shape
    return x.reshape(-1, _BRIDGE_HEADS, channels // _BRIDGE_HEADS, height * width)


def _split_tokens(z: torch.Tensor, channels: int, heads: int) -> torch.Tensor:
    """[N, T, C] to [N, heads, T, C / heads]."""
    return z.reshape(-1, z.shape[1], heads, channels // heads).transpose(1, 2)


def _merge_heads(z: torch.Tensor, channels: int) -> torch.Tensor:
    """[N, heads, T, C / heads] to [N, T, C]."""
    return z.transpose(1, 2).reshape(-1, z.shape[2], channels)


class MobileToFormer(nn.Module):
    """Bridge from map to tokens (equation 1): the tokens ask, the unprojected map is key and value at once."""

    def __init__(self, channels: int, token_width: int) -> None:
        super().__init__()
        self.channels = channels
        self.scale = (channels // _BRIDGE_HEADS) ** -0.5
        self.query = nn.Linear(token_width, channels)
        self.gate = nn.Linear(token_width, channels)
        self.project = nn.Linear(channels, token_width)
        self.norm = nn.LayerNorm(token_width)

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Update tokens z [N, T, D] from map x [N, C, H, W]; tokens [1, T, D] stand for the same ones in every image."""
        keys = _split_map(x, self.channels)
        scores = (_split_tokens(self.query(z), self.channels, _BRIDGE_HEADS) @ keys) * self.scale
        seen = _merge_heads(scores.softmax(dim=-1) @ keys.transpose(-1, -2), self.channels)
        gated = seen * (2.0 * functional.hardsigmoid(self.gate(z)))
        updated: torch.Tensor = self.norm(z + self.project(gated))
        return updated


class Former(nn.Module):
    """Former sub-block: self-attention of the tokens, then a feed-forward network, each normalised after its sum."""

    def __init__(self, token_width: int) -> None:
        super().__init__()
        self.width = token_width
        self.scale = (token_width // _FORMER_HEADS) ** -0.5
        self.query = nn.Linear(token_width, token_width)
        self.project = nn.Linear(token_width, token_width)
        self.attention_norm = nn.LayerNorm(token_width)
        self.expand = nn.Linear(token_width, _FFN_EXPANSION * token_width)
        self.contract = nn.Linear(_FFN_EXPANSION * token_width, token_width)
        self.ffn_norm = nn.LayerNorm(token_width)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """[N, T, D] to [N, T, D]."""
        values = _split_tokens(z, self.width, _FORMER_HEADS)
        scores = (_split_tokens(self.query(z), self.width, _FORMER_HEADS) @ values.transpose(-1, -2)) * self.scale
        z = self.attention_norm(z + self.project(_merge_heads(scores.softmax(dim=-1) @ values, self.width)))
        updated: torch.Tensor = self.ffn_norm(z + self.contract(functional.gelu(self.expand(z))))
        return updated


class FormerToMobile(nn.Module):
    """Bridge from tokens to map (equation 2): the unprojected map asks, keys and values are projected tokens."""

    def __init__(self, channels: int, token_width: int) -> None:
        super().__init__()
        self.channels = channels
        self.scale = (channels // _BRIDGE_HEADS) ** -0.5
        self.key = nn.Linear(token_width, channels)
        self.value = nn.Linear(token_width, channels)

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Update map x [N, C, H, W] from tokens z [N, T, D]."""
        queries = _split_map(x, self.channels).transpose(-1, -2)
        keys = _split_tokens(self.key(z), self.channels, _BRIDGE_HEADS)
        scores = (queries @ keys.transpose(-1, -2)) * self.scale
        values = _split_tokens(self.value(z), self.channels, _BRIDGE_HEADS)
        answer: torch.Tensor = (scores.softmax(dim=-1) @ values).transpose(-1, -2)
        return x + answer.reshape(-1, self.channels, x.shape[2], x.shape[3])


class MobileFormerBlock(nn.Module):
    """The two sub-blocks and the two bridges (section 3.2).

    Args:
        mobile: the Mobile sub-block, called with the map and the first token.
        channels_in: channels of the map that enters.
        channels_out: channels of the map that leaves.
        token_width: features of one token.
    """

    def __init__(self, mobile: nn.Module, channels_in: int, channels_out: int, token_width: int) -> None:
        super().__init__()
        self.to_former = MobileToFormer(channels_in, token_width)
        self.former = Former(token_width)
        self.mobile = mobile
        self.to_mobile = FormerToMobile(channels_out, token_width)

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Update map x [N, C, H, W], which changes shape if the Mobile sub-block does, and tokens z [N, T, D]."""
        z = self.former(self.to_former(x, z))
        x = self.mobile(x, z[:, 0])
        return self.to_mobile(x, z), z
