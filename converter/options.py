"""Options of a conversion: one frozen record, the only place where a default is written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from converter.calibration.preprocess import Preprocess
from converter.errors import UsageError
from converter.methods.names import DEFAULT_METHOD, METHOD_NAMES, OBSERVERS, OBSERVING
from converter.methods.search_parts import SearchParts
from converter.partition.policy import parse_placement
from converter.quantization.bit_widths import BitWidths
from converter.targets import DEFAULT_TARGET, find_target

__all__ = ["Options"]

_MOST_THREADS = 256


@dataclass(frozen=True)
class Options:
    """How to convert.

    Attributes:
        calib: folder or zip of images, .npz or .npy; None for synthetic images.
        samples: calibration samples.
        require_data: refuse built-in samples, and data that say nothing about other data.
        preprocess: of images; None for what the model's metadata says, else scaling to 0..1.
        input_shapes: sizes of symbolic dimensions during calibration, by input name.
        method: one of :data:`converter.planning.registry.METHODS`; an empty string stands for the best and is replaced by its name.
        bits: of weights and of what enters layers, ``W4A4`` to ``W8A8``; held as :class:`BitWidths`, which `widths` gives.
        target: one of :data:`converter.targets.TARGETS`, or the path of a target file, which ends in ``.toml``.
        placement: ``latency``, ``all`` or ``balanced:PRICE``, see :mod:`converter.partition.policy`.
        full: quantize what all operators read and write, also of those that run in float here, for machines without float.
        exclude: operators that stay float: globs over names in the input file, or over operator types.
        min_sqnr: least SQNR of every output in dB; None for no bound.
        seed: of all random choices.
        threads: of the runtime; 0 leaves the choice to it.
        plan_in: a plan to use instead of making one.
        parts: of q-hyvit's search.
        losses: ``scores`` or ``values`` by the name of a float output, where the graph tells wrong,
            see :mod:`converter.sensitivity.output_loss`.
        observer: of ``fq-vit``, one of :data:`converter.methods.names.OBSERVERS`; an empty string stands for the usual one.
    """

    calib: Path | None = None
    samples: int = 32
    require_data: bool = False
    preprocess: Preprocess | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    method: str = ""
    bits: BitWidths | str = field(default_factory=BitWidths)
    target: str = DEFAULT_TARGET
    placement: str = "latency"
    full: bool = False
    exclude: tuple[str, ...] = ()
    min_sqnr: float | None = None
    seed: int = 0
    threads: int = 0
    plan_in: Path | None = None
    parts: SearchParts = field(default_factory=SearchParts)
    losses: Mapping[str, str] = field(default_factory=dict)
    observer: str = ""

    def __post_init__(self) -> None:
        find_target(self.target)
        parse_placement(self.placement)
        object.__setattr__(self, "bits", self.widths)
        if self.samples < 1:
            raise UsageError(f"{self.samples} samples are too few", where="--samples", hint="give 1 or more")
        if not 0 <= self.threads <= _MOST_THREADS:
            hint = f"give 0 (automatic) to {_MOST_THREADS}"
            raise UsageError(f"{self.threads} threads make no sense", where="--threads", hint=hint)
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"the seed {self.seed} is out of range", where="--seed", hint="give 0 to 4294967295")
        if self.min_sqnr is not None and not math.isfinite(self.min_sqnr):
            raise UsageError(f"{self.min_sqnr} is not a bound", where="--min-sqnr", hint="give a number of decibels, such as 20")
        self._settle_method()

    @property
    def widths(self) -> BitWidths:
        """The bits, whether they were given as a text or not."""
        return BitWidths.parse(self.bits) if isinstance(self.bits, str) else self.bits

    def _settle_method(self) -> None:
        if self.method:
            _one_of("--method", self.method, METHOD_NAMES)
        object.__setattr__(self, "method", self.method or DEFAULT_METHOD)
        if self.observer:
            _one_of("--observer", self.observer, OBSERVERS)
            if self.method not in OBSERVING:
                hint = f"leave it out, or give --method {' or '.join(OBSERVING)}"
                raise UsageError(f"the method {self.method} has no choice of observers", where="--observer", hint=hint)


def _one_of(flag: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise UsageError(f"'{value}' is not known", where=flag, hint=f"choose from {', '.join(known)}")
