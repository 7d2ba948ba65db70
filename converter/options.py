"""Options of a conversion: one frozen record, the only place where a default is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from converter.errors import UsageError
from converter.methods import DEFAULT_METHOD, METHODS
from converter.preprocess import Preprocess
from converter.targets import TARGETS

__all__ = ["Options", "parse_bits"]


@dataclass(frozen=True)
class Options:
    """How to convert.

    Attributes:
        calib: folder or zip of images, .npz or .npy; None for synthetic images.
        samples: calibration samples.
        preprocess: of images; None for what the model's metadata says, else scaling to 0..1.
        input_shapes: sizes of symbolic dimensions during calibration, by input name.
        method: one of :data:`converter.methods.METHODS`.
        bits: ``W8A8``.
        target: one of :data:`converter.targets.TARGETS`.
        exclude: operators that stay float: globs over names in the input file, or over operator types.
        min_sqnr: least SQNR of every output in dB; None for no bound.
        seed: of all random choices.
        threads: of the runtime; 0 leaves the choice to it.
        plan_in: a plan to use instead of making one.
    """

    calib: Path | None = None
    samples: int = 32
    preprocess: Preprocess | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    method: str = DEFAULT_METHOD
    bits: str = "W8A8"
    target: str = "arm64"
    exclude: tuple[str, ...] = ()
    min_sqnr: float | None = None
    seed: int = 0
    threads: int = 0
    plan_in: Path | None = None

    def __post_init__(self) -> None:
        _one_of("--method", self.method, METHODS)
        _one_of("--target", self.target, TARGETS)
        parse_bits(self.bits)
        if self.samples < 1:
            raise UsageError(f"{self.samples} samples are too few", where="--samples", hint="give 1 or more")
        if self.threads < 0:
            raise UsageError(f"{self.threads} threads make no sense", where="--threads", hint="give 0 (automatic) or more")
        if self.seed < 0:
            raise UsageError(f"the seed {self.seed} is negative", where="--seed", hint="give 0 or more")


def _one_of(flag: str, value: str, known: Mapping[str, object]) -> None:
    if value not in known:
        raise UsageError(f"'{value}' is not known", where=flag, hint=f"choose from {', '.join(known)}")


def parse_bits(text: str) -> tuple[int, int]:
    """``W8A8`` to (weight bits, activation bits).

    Raises:
        UsageError: not of that form, or not supported.
    """
    found = re.fullmatch(r"[Ww]([0-9])[Aa]([0-9])", text)
    if not found or not all(4 <= int(b) <= 8 for b in found.groups()):
        raise UsageError(f"'{text}' is not a bit width", where="--bits", hint="write W8A8; 4 to 8 bits each")
    weights, activations = int(found[1]), int(found[2])
    return weights, activations
