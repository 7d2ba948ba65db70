"""The transforms that a plan can hold."""

from __future__ import annotations

from converter.transforms.equalization.transform import Equalizations
from converter.transforms.nonuniform.transform import NonuniformQuantization
from converter.transforms.normalization.transform import PlainNormalizations
from converter.transforms.sigmoids.transform import ConstantGates
from converter.transforms.softmax.transform import LateSoftmaxes
from converter.transforms.transform import Transform

__all__ = ["TRANSFORMS"]

TRANSFORMS: tuple[type[Transform], ...] = (PlainNormalizations, LateSoftmaxes, Equalizations, NonuniformQuantization, ConstantGates)
"""In the order in which they are applied. Each is a dataclass with one field, which is called like its key."""
