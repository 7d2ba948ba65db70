"""Every reference network by its usual name, and how to build it for a given image size."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import nn

from converter.errors import UsageError

__all__ = ["UnknownModelError", "create", "default_preprocess", "default_size", "names"]

Builder = Callable[[int, int], nn.Module]
"""Called with (classes, size in pixels); returns the untrained network."""

_MOBILEVIT_V1 = ("mobilevit_xxs", "mobilevit_xs", "mobilevit_s")
_MOBILEVIT_V2 = tuple(f"mobilevitv2_{width}" for width in ("050", "075", "100", "125", "150", "175", "200"))
_EFFICIENTFORMER_V1 = ("efficientformer_l1", "efficientformer_l3", "efficientformer_l7")
_EFFICIENTFORMER_V2 = tuple(f"efficientformerv2_{size}" for size in ("s0", "s1", "s2", "l"))


class UnknownModelError(UsageError):
    """No network of that name."""

    def __init__(self, what: str) -> None:
        super().__init__(what, where="NAME", hint="give one of those, or see the list of networks in docs/models.md")


def _timm(name: str, classes: int, size: int, *, sized: bool = False) -> nn.Module:
    """A network of timm; ``sized`` if its position biases are built for one image size."""
    import timm

    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, **({"img_size": size} if sized else {}))
    return model


def _efficientformer_v1(name: str, classes: int, size: int) -> nn.Module:
    from models.efficientformer import create_efficientformer

    return create_efficientformer(name, classes=classes, size=size)


def _mobile_former(name: str, classes: int, size: int) -> nn.Module:
    from models.mobile_former import create_mobile_former

    return create_mobile_former(name, classes=classes)


def _mobile_former_names() -> tuple[str, ...]:
    return tuple(f"mobile_former_{macs}" for macs in ("26m", "52m", "96m", "151m", "214m", "294m", "508m"))


def _builders() -> dict[str, Builder]:
    families: list[tuple[tuple[str, ...], Callable[[str, int, int], nn.Module]]] = [
        (_MOBILEVIT_V1, _timm),
        (_MOBILEVIT_V2, _timm),
        (_mobile_former_names(), _mobile_former),
        (_EFFICIENTFORMER_V1, _efficientformer_v1),
        (_EFFICIENTFORMER_V2, functools.partial(_timm, sized=True)),
    ]
    return {name: functools.partial(build, name) for members, build in families for name in members}


def names() -> list[str]:
    """All known names, family by family."""
    return list(_builders())


def default_size(name: str) -> int:
    """Height and width of the images a network was published for, in pixels."""
    return 256 if name in (*_MOBILEVIT_V1, *_MOBILEVIT_V2) else 224


def default_preprocess(name: str) -> str:
    """SPEC of converter.calibration.preprocess for the weights a network was published with."""
    return "unit;resize=crop" if name in (*_MOBILEVIT_V1, *_MOBILEVIT_V2) else "imagenet;resize=crop"


def create(name: str, *, classes: int = 1000, size: int = 224) -> nn.Module:
    """Build a network with untrained weights.

    Args:
        name: one of :func:`names`.
        size: height and width of the images, in pixels.

    Raises:
        UnknownModelError: no such name; the message lists the nearest.
    """
    builders = _builders()
    if name not in builders:
        import difflib

        near = difflib.get_close_matches(name, builders, n=3, cutoff=0.3)
        raise UnknownModelError(f"no model is called '{name}'; the nearest names are {', '.join(near) or 'none'}")
    return builders[name](classes, size)
