"""Mobile-Former (arXiv 2108.05895): seven variants named after their multiply-accumulates at 224 pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from models.mobile_former_blocks import (
    ChannelShuffle,
    DownsamplingMobile,
    LiteBottleneck,
    Mobile,
    MobileFormerBlock,
    MobileToFormer,
    conv_norm,
)

__all__ = ["VARIANTS", "Block", "MobileFormer", "Variant", "create_mobile_former"]

_SECOND_EXPANSION = 4
_HEAD_EXPANSION = 6


@dataclass(frozen=True)
class Block:
    """One Mobile-Former block.

    Attributes:
        width: channels of the map that leaves the block.
        expansion: hidden channels of the Mobile sub-block over its input channels.
        strided: halves height and width, in the four-convolution form.
    """

    width: int
    expansion: int
    strided: bool = False


@dataclass(frozen=True)
class Variant:
    """Everything that tells one network of the family from another (table 1 of the paper and its appendix).

    Attributes:
        tokens: how many tokens.
        token_width: features of one token.
        stem: channels behind the first convolution.
        lite: width, expansion and stride of the lite bottleneck.
        blocks: the Mobile-Former blocks in order.
        head: hidden features of the classifier.
        groups: groups of every pointwise convolution; above 1 the channels are shuffled in between.
    """

    tokens: int
    token_width: int
    stem: int
    lite: tuple[int, int, int]
    blocks: tuple[Block, ...]
    head: int
    groups: int = 1


def _down(width: int) -> Block:
    return Block(width, 6, strided=True)


# The resolution after the stem is half the image's; each _down halves it again.
_BLOCKS_26M = (Block(12, 3), _down(24), Block(24, 3), _down(48), Block(48, 4), Block(64, 6), _down(96), Block(96, 6))
_BLOCKS_96M = (_down(16), _down(32), Block(32, 3), _down(64), Block(64, 4), Block(88, 6), _down(128), Block(128, 6))


def _blocks(widths: tuple[int, int, int, int, int], expansions: tuple[int, int, int]) -> tuple[Block, ...]:
    """Eleven blocks, the arrangement of the four largest networks, from their widths and the expansions that differ."""
    quarter, eighth, early, late, last = widths
    return (
        *(_down(quarter), Block(quarter, expansions[0])),
        *(_down(eighth), Block(eighth, expansions[1])),
        *(_down(early), Block(early, expansions[2]), Block(late, 6), Block(late, 6)),
        *(_down(last), Block(last, 6), Block(last, 6)),
    )


VARIANTS: dict[str, Variant] = {
    "mobile_former_26m": Variant(3, 128, stem=8, lite=(12, 3, 2), blocks=_BLOCKS_26M, head=1024, groups=4),
    "mobile_former_52m": Variant(3, 128, stem=8, lite=(12, 3, 2), blocks=_BLOCKS_26M, head=1024),
    "mobile_former_96m": Variant(4, 128, stem=12, lite=(12, 2, 1), blocks=_BLOCKS_96M, head=1280),
    "mobile_former_151m": Variant(6, 192, stem=12, lite=(12, 2, 1), blocks=_blocks((16, 32, 64, 88, 128), (3, 3, 4)), head=1280),
    "mobile_former_214m": Variant(6, 192, stem=12, lite=(12, 2, 1), blocks=_blocks((20, 40, 80, 112, 160), (3, 4, 4)), head=1600),
    "mobile_former_294m": Variant(6, 192, stem=16, lite=(16, 2, 1), blocks=_blocks((24, 48, 96, 128, 192), (4, 4, 4)), head=1920),
    "mobile_former_508m": Variant(6, 192, stem=24, lite=(24, 2, 1), blocks=_blocks((40, 72, 128, 176, 240), (3, 3, 4)), head=1920),
}
"""By name, smallest first."""


class MobileFormer(nn.Module):
    """Stem, lite bottleneck, Mobile-Former blocks, and a classifier over the pooled map and the first token."""

    def __init__(self, variant: Variant, classes: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(variant.tokens, variant.token_width))
        self.stem = conv_norm(3, variant.stem, kernel=3, stride=2)
        width, expansion, stride = variant.lite
        self.lite = LiteBottleneck(variant.stem, width, expansion=expansion, stride=stride, groups=variant.groups)
        self.blocks = nn.ModuleList()
        for block in variant.blocks:
            self.blocks.append(_build_block(block, width, variant.token_width, variant.groups))
            width = block.width
        self.to_former = MobileToFormer(width, variant.token_width)
        self.shuffle = ChannelShuffle(width, variant.groups) if variant.groups > 1 else nn.Identity()
        self.expand = conv_norm(width, _HEAD_EXPANSION * width, groups=variant.groups)
        self.hidden = nn.Linear(_HEAD_EXPANSION * width + variant.token_width, variant.head)
        self.hidden_norm = nn.BatchNorm1d(variant.head)
        self.classifier = nn.Linear(variant.head, classes)
        self._initialise()

    def _initialise(self) -> None:
        """He initialisation by fan-out for kernels; linear layers near zero, so each dynamic ReLU starts as a ReLU."""
        nn.init.normal_(self.tokens)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores of a batch.

        Args:
            image: normalised images [N, 3, H, W], H and W divisible by 32.

        Returns:
            Logits [N, classes].
        """
        z = self.tokens.unsqueeze(0)  # one set for all images, until the first bridge has looked at each
        x = self.lite(functional.relu6(self.stem(image)))
        for block in self.blocks:
            x, z = block(x, z)
        z = self.to_former(x, z)
        pooled = functional.relu6(self.expand(self.shuffle(x))).mean(dim=(2, 3))
        features = torch.cat((functional.hardswish(pooled), z[:, 0]), dim=1)
        logits: torch.Tensor = self.classifier(functional.hardswish(self.hidden_norm(self.hidden(features))))
        return logits


def _build_block(block: Block, channels_in: int, token_width: int, groups: int) -> MobileFormerBlock:
    mobile: nn.Module
    if block.strided:
        mobile = DownsamplingMobile(
            channels_in, block.width, token_width, expansion=block.expansion, second_expansion=_SECOND_EXPANSION, groups=groups
        )
    else:
        mobile = Mobile(channels_in, block.width, token_width, expansion=block.expansion, groups=groups)
    return MobileFormerBlock(mobile, channels_in, block.width, token_width)


def create_mobile_former(name: str, classes: int = 1000) -> nn.Module:
    """Build a network with untrained weights.

    Args:
        name: a key of :data:`VARIANTS`.

    Raises:
        ValueError: no such variant.
    """
    if name not in VARIANTS:
        raise ValueError(f"no Mobile-Former is called '{name}'; there are {', '.join(VARIANTS)}")
    return MobileFormer(VARIANTS[name], classes)
