"""The networks of the zoo: hybrids, and transformers of a structure that strangers have, made in code and never downloaded.

Large ones are made smaller by arguments of their constructors, so that a row costs a minute or two; the name says so. How each is
exported stands in the table as well: all four combinations of exporter and batch occur equally often, and some networks
have all four.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from converter.errors import UsageError
from models.export import OUTPUT

__all__ = ["ALL_FOUR", "COMBINATIONS", "NETWORKS", "Entry", "How"]

_CLASSES = 100


@dataclass(frozen=True)
class How:
    """A way to export.

    Attributes:
        exporter: ``torchscript`` or ``dynamo``.
        open_batch: the batch is left open instead of 1.
    """

    exporter: str
    open_batch: bool


COMBINATIONS = (How("torchscript", False), How("torchscript", True), How("dynamo", False), How("dynamo", True))
_TS, _TS_OPEN, _DYNAMO, _DYNAMO_OPEN = COMBINATIONS


@dataclass(frozen=True)
class Entry:
    """One network.

    Attributes:
        name: of the network, with its pixels and what was made smaller.
        size: height and width in pixels.
        how: to export it.
        make: builds the module, with the weights it is initialised with.
        outputs: names of what it gives.
    """

    name: str
    size: int
    how: How
    make: Callable[[], nn.Module] = field(repr=False)
    outputs: tuple[str, ...] = (OUTPUT,)


def _library(name: str) -> ModuleType:
    """A library of the extra ``zoo``.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(f"{name} is not installed", where="the extra 'zoo'", hint="pip install -c constraints.txt -e '.[zoo]'") from error


def _name(network: str, size: int, small: object) -> str:
    return f"{network}{'-small' if small else ''}@{size}"


def _timm(network: str, size: int, how: How, *, sized: bool = True, **changes: Any) -> Entry:
    """A network of timm; ``sized`` if its constructor wants to know the size of the images."""
    arguments = {"img_size": size, **changes} if sized else changes
    return Entry(
        _name(network, size, changes),
        size,
        how,
        lambda: _library("timm").create_model(network, pretrained=False, num_classes=_CLASSES, **arguments),
    )


def _of(name: str, size: int, how: How, path: str, arguments: Callable[[ModuleType], Mapping[str, Any]]) -> Entry:
    """A smaller network made by a class, where the function of that name lets arguments not be changed.

    Args:
        name: of the network that it is a smaller one of.
        size: in pixels.
        how: to export it.
        path: of the class, behind its module.
        arguments: of the class; gets the module.
    """
    module, _, kind = path.rpartition(".")

    def make() -> nn.Module:
        _library(module.partition(".")[0])
        home = importlib.import_module(module)
        built: nn.Module = getattr(home, kind)(num_classes=_CLASSES, **arguments(home))
        return built

    return Entry(_name(name, size, arguments), size, how, make)


class _Fields(nn.Module):
    """A network of transformers that answers with a tuple of some fields of what it answers, without any that are not tensors."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """One tensor, or a tuple of several."""
        answer = self.network(image)
        found = tuple(getattr(answer, name) for name in self.names)
        return found if len(found) > 1 else found[0]


def _transformers(network: str, size: int, how: How, outputs: tuple[str, ...], config: str, **changes: Any) -> Entry:
    def make() -> nn.Module:
        library = _library("transformers")
        return _Fields(getattr(library, network)(getattr(library, config)(**changes)), outputs)

    small = any(word in name for name in changes for word in ("layers", "depth"))
    return Entry(_name(network, size, small), size, how, make, outputs)


_VIT = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 768}
"""A plain transformer of 4 layers, as the configurations of transformers spell it."""

_BOXES = ("logits", "pred_boxes")


def _rtdetr(how: How) -> Entry:
    def make() -> nn.Module:
        library = _library("transformers")
        backbone = library.RTDetrResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 96, 128],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        )
        config = library.RTDetrConfig(
            backbone_config=backbone,
            encoder_in_channels=[64, 96, 128],
            d_model=128,
            encoder_hidden_dim=128,
            encoder_ffn_dim=256,
            decoder_ffn_dim=256,
            decoder_in_channels=[128, 128, 128],
            decoder_layers=2,
            num_queries=100,
            num_labels=20,
            anchor_image_size=None,
            freeze_backbone_batch_norms=False,
        )
        return _Fields(library.RTDetrForObjectDetection(config), _BOXES)

    return Entry(_name("RTDetrForObjectDetection", 256, True), 256, how, make, _BOXES)


def _dfine(how: How) -> Entry:
    def make() -> nn.Module:
        library = _library("transformers")
        config = library.DFineConfig(decoder_layers=2, num_queries=100, num_labels=20, freeze_backbone_batch_norms=False)
        return _Fields(library.DFineForObjectDetection(config), _BOXES)

    return Entry(_name("DFineForObjectDetection", 192, True), 192, how, make, _BOXES)


NETWORKS: tuple[Entry, ...] = (
    # hybrids, small as published
    _timm("mobilevit_xxs", 128, _TS, sized=False),
    _timm("mobilevit_xs", 128, _TS_OPEN, sized=False),
    _timm("mobilevit_s", 128, _DYNAMO, sized=False),
    _timm("mobilevitv2_050", 128, _DYNAMO_OPEN, sized=False),
    _timm("mobilevitv2_075", 128, _TS, sized=False),
    _timm("mobilevitv2_100", 128, _TS_OPEN, sized=False),
    _timm("mobilenetv4_hybrid_medium", 128, _DYNAMO, sized=False),
    _timm("efficientformer_l1", 224, _TS, sized=False),
    _timm("efficientformerv2_s0", 224, _TS_OPEN, sized=False),
    _timm("edgenext_xx_small", 128, _DYNAMO_OPEN, sized=False),
    _timm("fastvit_sa12", 128, _DYNAMO, sized=False, layers=(1, 1, 2, 1)),
    _timm("repvit_m0_9", 128, _TS_OPEN, sized=False),
    _timm("efficientvit_b0", 128, _DYNAMO_OPEN, sized=False),
    _timm("efficientvit_m0", 128, _DYNAMO_OPEN),
    _timm("levit_128s", 128, _TS),
    _timm("swiftformer_xs", 128, _DYNAMO, sized=False),
    _timm("shvit_s1", 128, _DYNAMO_OPEN, sized=False),
    _timm("tiny_vit_5m_224", 128, _TS_OPEN, sized=False),
    _timm("coatnet_pico_rw_224", 128, _DYNAMO, depths=(1, 1, 2, 1)),
    _timm("maxvit_rmlp_pico_rw_256", 128, _DYNAMO_OPEN, depths=(1, 1, 1, 1)),
    _timm("coat_lite_tiny", 128, _TS),
    _timm("nextvit_small", 128, _TS_OPEN, sized=False, depths=(1, 1, 5, 1)),
    _timm("visformer_tiny", 128, _DYNAMO),
    _of(
        "gcvit_xxtiny",
        224,
        _TS,
        "timm.models.gcvit.GlobalContextVit",
        lambda m: {"img_size": 224, "depths": (1, 1, 2, 1), "num_heads": (2, 4, 8, 16), "embed_dim": 48},
    ),
    _timm("davit_tiny", 128, _DYNAMO_OPEN, sized=False, depths=(1, 1, 1, 1), embed_dims=(48, 96, 192, 384)),
    _of(
        "mvitv2_tiny",
        128,
        _TS,
        "timm.models.mvitv2.MultiScaleVit",
        lambda m: {"cfg": m.MultiScaleVitCfg(embed_dim=48, depths=(1, 2, 2, 1)), "img_size": 128},
    ),
    _of("focalnet_tiny_srf", 128, _DYNAMO, "timm.models.focalnet.FocalNet", lambda m: {"depths": (1, 1, 2, 1), "embed_dim": 48}),
    _timm("pvt_v2_b0", 128, _TS_OPEN, sized=False),
    _timm("poolformer_s12", 128, _DYNAMO_OPEN, sized=False),
    _of(
        "caformer_s18",
        128,
        _DYNAMO,
        "timm.models.metaformer.MetaFormer",
        lambda m: {
            "depths": (1, 1, 2, 1),
            "dims": (32, 64, 160, 256),
            "token_mixers": [m.SepConv, m.SepConv, m.Attention, m.Attention],
            "norm_layers": [m.LayerNorm2dNoBias] * 2 + [m.LayerNormNoBias] * 2,
        },
    ),
    # transformers
    _timm("deit_tiny_patch16_224", 128, _TS, depth=6),
    _timm("crossvit_tiny_240", 120, _DYNAMO_OPEN),
    _timm("swin_tiny_patch4_window7_224", 112, _TS, embed_dim=48, depths=(1, 1, 2, 1)),
    _timm("swinv2_tiny_window8_256", 128, _TS_OPEN, embed_dim=48, depths=(1, 1, 2, 1)),
    _timm("hiera_tiny_224", 128, _DYNAMO, stages=(1, 1, 2, 1), embed_dim=48),
    _timm("xcit_nano_12_p16_224", 128, _TS_OPEN, depth=4),
    _of(
        "volo_d1",
        128,
        _DYNAMO_OPEN,
        "timm.models.volo.VOLO",
        lambda m: {
            "img_size": 128,
            "layers": (1, 1, 2, 1),
            "embed_dims": (96, 192, 192, 192),
            "num_heads": (3, 6, 6, 6),
            "downsamples": (True, False, False, False),
            "outlook_attention": (True, False, False, False),
        },
    ),
    _timm("twins_svt_small", 128, _TS, depths=(1, 1, 2, 1)),
    _timm("sequencer2d_s", 128, _DYNAMO, layers=(1, 1, 2, 1)),
    _timm("convit_tiny", 128, _TS_OPEN, depth=6),
    _timm("pit_ti_224", 128, _TS),
    _timm("cait_xxs24_224", 128, _DYNAMO_OPEN, depth=6),
    _timm("tnt_s_patch16_224", 128, _TS_OPEN, depth=3),
    _of(
        "nest_tiny",
        128,
        _DYNAMO,
        "timm.models.nest.Nest",
        lambda m: {"img_size": 128, "embed_dims": (48, 96, 192), "depths": (1, 1, 2), "num_heads": (2, 4, 8)},
    ),
    _timm("eva02_tiny_patch14_224", 112, _DYNAMO_OPEN, depth=4),
    _timm("vit_small_patch16_dinov3", 128, _TS, depth=3),
    _of(
        "torchvision vit_b_16",
        128,
        _DYNAMO_OPEN,
        "torchvision.models.VisionTransformer",
        lambda m: {"image_size": 128, "patch_size": 16, "num_layers": 4, "num_heads": 3, "hidden_dim": 192, "mlp_dim": 768},
    ),
    _of(
        "torchvision swin_t",
        112,
        _TS_OPEN,
        "torchvision.models.SwinTransformer",
        lambda m: {"patch_size": [4, 4], "embed_dim": 48, "depths": [1, 1, 2, 1], "num_heads": [3, 6, 12, 24], "window_size": [7, 7]},
    ),
    _of(
        "torchvision maxvit_t",
        224,
        _DYNAMO,
        "torchvision.models.MaxVit",
        lambda m: {
            "input_size": (224, 224),
            "stem_channels": 32,
            "partition_size": 7,
            "block_channels": [32, 64, 128, 256],
            "block_layers": [1, 1, 1, 1],
            "head_dim": 32,
            "stochastic_depth_prob": 0.0,
        },
    ),
    # with other heads than a classifier's
    _transformers("CvtForImageClassification", 128, _TS_OPEN, ("logits",), "CvtConfig", depth=(1, 2, 3), num_labels=_CLASSES),
    _transformers("SegformerForSemanticSegmentation", 128, _DYNAMO, ("logits",), "SegformerConfig", depths=(1, 1, 1, 1), num_labels=20),
    _transformers("MobileViTForSemanticSegmentation", 128, _TS, ("logits",), "MobileViTConfig", image_size=128, num_labels=20),
    _transformers(
        "DPTForDepthEstimation",
        128,
        _DYNAMO,
        ("predicted_depth",),
        "DPTConfig",
        image_size=128,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[24, 48, 96, 96],
        fusion_hidden_size=48,
        **_VIT,
    ),
    _transformers("YolosForObjectDetection", 160, _TS_OPEN, _BOXES, "YolosConfig", image_size=[160, 160], num_labels=20, **_VIT),
    _rtdetr(_TS),
    _dfine(_TS_OPEN),
    _transformers(
        "CLIPVisionModelWithProjection",
        128,
        _DYNAMO_OPEN,
        ("image_embeds",),
        "CLIPVisionConfig",
        image_size=128,
        patch_size=16,
        projection_dim=128,
        **_VIT,
    ),
    _transformers(
        "Dinov2ForImageClassification",
        126,
        _TS,
        ("logits",),
        "Dinov2Config",
        image_size=126,
        num_labels=_CLASSES,
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=3,
    ),
)
"""The zoo, each network as it is exported."""

ALL_FOUR = ("mobilevit_xxs@128", "mobilevitv2_050@128", "levit_128s@128", "deit_tiny_patch16_224-small@128", "pvt_v2_b0@128")
"""Names of those that are exported in all combinations."""
