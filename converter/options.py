"""Options of a conversion: one frozen record, the only place where a default is written; the command line is made of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from converter.errors import UsageError
from converter.flag import flag
from converter.graph.operator_sets import NEWEST_OUTPUT_OPSET, OLDEST_OUTPUT_OPSET
from converter.methods.names import DEFAULT_METHOD, DEFAULT_OBSERVER, METHOD_NAMES, OBSERVERS, OBSERVING, MethodName, ObserverName
from converter.methods.search_parts import SearchParts
from converter.partition.policy import parse_placement
from converter.plan.io_forms import IO_FORMS, IoForm
from converter.quantization.bit_widths import BitWidths
from converter.sensitivity.loss_names import LOSS_NAMES, LossName
from converter.targets import DEFAULT_TARGET, TARGET_NAMES, find_target

if TYPE_CHECKING:  # it loads NumPy and Pillow, and --help shall be answered at once
    from converter.calibration.preprocess import Preprocess

__all__ = ["Options"]

_MOST_THREADS = 256
_MOST_SAMPLES = 100_000
_MOST_EVALUATIONS = 1000
_OF_A_BUDGET = {"evaluation": "--eval", "metric": "--metric", "max_evaluations": "--max-evaluations", "keep_best": "--keep-best"}
_CALIBRATION, _BUDGET, _PLAN = "calibration", "accuracy budget", "plan and report"


@dataclass(frozen=True)
class Options:
    """How to convert.

    Attributes:
        calib: folder or zip of images, .npz or .npy, or samples in memory: arrays, or dicts of arrays by input name, of which no more
            than `samples` are taken. Each is a sample, without the batch axis, or a batch of them. uint8 pictures for an input of float
            ones are scaled as `preprocess` says, and not resized. None for synthetic images.
        samples: calibration samples.
        require_data: refuse built-in samples, and data that say nothing about other data.
        preprocess: of images; None for what the model's metadata says, else scaling to 0..1.
        input_shapes: sizes of symbolic dimensions during calibration, by input name.
        method: one of :data:`converter.planning.registry.METHODS`.
        observer: of ``fq-vit``; None for the usual one.
        bits: of weights and of what enters layers, ``W4A4`` to ``W8A8``; held as :class:`BitWidths`, which `widths` gives.
        target: one of :data:`converter.targets.TARGETS`, or the path of a target file, which ends in ``.toml``.
        placement: ``latency``, ``all`` or ``balanced:PRICE``, see :mod:`converter.partition.policy`.
        prefer: ``size`` stores the weights of layers that stay float in 8 bits too, ``accuracy`` leaves them as they are. The runtime
            computes as fast either way.
        full: quantize what all operators read and write, also of those that run in float here, for machines without float.
        io: ``float`` inputs and outputs, or ``uint8``: pictures as they are, and outputs as codes where they are quantized.
        parts: of q-hyvit's search.
        losses: ``scores`` or ``values`` by the name of a float output, where the graph tells wrong,
            see :mod:`converter.sensitivity.output_loss`.
        exclude: operators that stay float: globs over names in the input file, or over operator types.
        opset: of the result; None for the lowest that it can be written in.
        min_sqnr: least SQNR of every output in dB; None for no bound.
        latency: compare latencies, which takes seconds, also on a machine that is none of the target's.
        seed: of all random choices.
        threads: of the runtime; 0 leaves the choice to it.
        max_drop: the most that a score may lose, in its unit: the cheapest placement within it is chosen, see :mod:`converter.budget`.
            None for no such budget.
        evaluation: folder or zip of images, .npz or .npy, on which the score is measured; in class folders for ``top1``.
        metric: ``top1``, ``agreement``, ``sqnr``, or a command that prints a number for the model whose path is its last argument.
        max_evaluations: quantized models that are evaluated at most.
        keep_best: write the best found where nothing is within the budget.
        plan_in: a plan to use instead of making one.
    """

    calib: str | Path | Iterable[Any] | None = flag(
        None, "folder or zip of images, .npz, .npy (default: synthetic)", "PATH", kind=Path, group=_CALIBRATION
    )
    samples: int = flag(32, "samples to calibrate on", "N", group=_CALIBRATION)
    require_data: bool = flag(False, "refuse built-in samples, and data that say nothing (all equal, black pictures)", group=_CALIBRATION)
    preprocess: Preprocess | None = flag(
        None, "of images: imagenet, unit, symmetric, or 'mean=..;std=..', with ';resize=stretch|crop|pad'", "SPEC", group=_CALIBRATION
    )
    input_shapes: Mapping[str, tuple[int, ...]] = flag(
        dict, "size of an open input, as x:1,3,48,320", "NAME:DIMS", name="--input-shape", group=_CALIBRATION, many=True
    )
    method: MethodName = flag(DEFAULT_METHOD, f"how scales and zero points are chosen: {', '.join(METHOD_NAMES)}", "NAME")
    observer: ObserverName | None = flag(None, f"fq-vit: how it sees ranges: {', '.join(OBSERVERS)} (default: {DEFAULT_OBSERVER})", "HOW")
    bits: BitWidths | str = flag(BitWidths, "of weights and activations, 4 to 8", "WxAy")
    target: str = flag(DEFAULT_TARGET, f"{', '.join(TARGET_NAMES)}, or a FILE.toml", "NAME")
    placement: Literal["latency", "all"] | str = flag(
        "latency", "latency: fastest that stays near float; balanced:PRICE; all: in integer", "HOW"
    )
    prefer: Literal["accuracy", "size"] = flag("accuracy", "of weights of layers in float; size: stored in 8 bits", "WHAT")
    full: bool = flag(False, "quantize softmax, norms and all else too, for machines without float")
    io: IoForm = flag("float", "float, or uint8: take pixels as they are, and give codes where outputs are quantized", "HOW")
    parts: SearchParts = field(default_factory=SearchParts)
    losses: Mapping[str, LossName] = flag(dict, "count errors of an output as of scores or values", "NAME=KIND", name="--loss", many=True)
    exclude: tuple[str, ...] = flag((), "keep operators float: name glob or type", "PATTERN", many=True)
    opset: int | None = flag(None, "of the result (default: the lowest it can be written in)", "N", kind=int)
    min_sqnr: float | None = flag(None, "least SQNR of each output, else exit 6", "DB", kind=float)
    latency: bool = flag(False, "compare latencies also where this machine is none of the target's")
    seed: int = flag(0, "of all random choices", "N")
    threads: int = flag(0, "of the runtime; 0 lets it choose", "N")
    max_drop: float | None = flag(None, "take the cheapest placement whose score drops by no more", "X", kind=float, group=_BUDGET)
    evaluation: Path | None = flag(
        None, "data to measure the score on; images in class folders for top1", "PATH", kind=Path, name="--eval", group=_BUDGET
    )
    metric: str = flag("top1", "top1, agreement, sqnr, or a COMMAND that prints a number for a model's path", "HOW", group=_BUDGET)
    max_evaluations: int = flag(12, "models that are evaluated at most", "N", group=_BUDGET)
    keep_best: bool = flag(False, "write the best found even if the budget is missed (exit 6)", group=_BUDGET)
    plan_in: Path | None = flag(None, "use this plan, perhaps edited, instead of making one", "FILE", kind=Path, group=_PLAN)

    def __post_init__(self) -> None:
        self._give_types()
        find_target(self.target)
        parse_placement(self.placement)
        object.__setattr__(self, "bits", self.widths)
        if not 1 <= self.samples <= _MOST_SAMPLES:
            few = self.samples < 1
            raise UsageError(
                f"{self.samples} samples are too {'few' if few else 'many'}", where="--samples", hint=f"give 1 to {_MOST_SAMPLES}"
            )
        if not 0 <= self.threads <= _MOST_THREADS:
            hint = f"give 0 (automatic) to {_MOST_THREADS}"
            raise UsageError(f"{self.threads} threads make no sense", where="--threads", hint=hint)
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"the seed {self.seed} is out of range", where="--seed", hint="give 0 to 4294967295")
        if self.min_sqnr is not None and not math.isfinite(self.min_sqnr):
            raise UsageError(f"{self.min_sqnr} is not a bound", where="--min-sqnr", hint="give a number of decibels, such as 20")
        self._check_budget()
        if self.opset is not None and not OLDEST_OUTPUT_OPSET <= self.opset <= NEWEST_OUTPUT_OPSET:
            hint = f"give {OLDEST_OUTPUT_OPSET} to {NEWEST_OUTPUT_OPSET}, or leave it out for the lowest that will do"
            raise UsageError(f"results cannot be written in opset {self.opset}", where="--opset", hint=hint)
        _one_of("--io", self.io, IO_FORMS)
        _one_of("--method", self.method, METHOD_NAMES)
        _one_of("--prefer", self.prefer, ("accuracy", "size"))
        for kind in self.losses.values():
            _one_of("--loss", kind, LOSS_NAMES)
        if self.observer is not None:
            _one_of("--observer", self.observer, OBSERVERS)
            if self.method not in OBSERVING:
                hint = f"leave it out, or give --method {' or '.join(OBSERVING)}"
                raise UsageError(f"the method {self.method} has no choice of observers", where="--observer", hint=hint)

    def _check_budget(self) -> None:
        if self.max_drop is None:
            defaults = {each.name: each.default for each in fields(self)}
            for name, said in _OF_A_BUDGET.items():
                if getattr(self, name) != defaults[name]:
                    raise UsageError("it says nothing without a budget", where=said, hint="give --max-drop too, or leave it out")
            return
        if not 0.0 <= self.max_drop < math.inf:
            raise UsageError(f"{self.max_drop} is not a drop", where="--max-drop", hint="give 0 or more, such as 0.5")
        if not 1 <= self.max_evaluations <= _MOST_EVALUATIONS:
            hint = f"give 1 to {_MOST_EVALUATIONS}"
            raise UsageError(f"{self.max_evaluations} evaluations make no sense", where="--max-evaluations", hint=hint)
        placed = {"--placement": self.placement != "latency", "--full": self.full, "--plan-in": self.plan_in is not None}
        for said in (name for name, given in placed.items() if given):
            raise UsageError("the budget decides what runs in integer", where=f"--max-drop with {said}", hint="give one of the two")

    def _give_types(self) -> None:
        """Take what a program would write: texts for paths, and one pattern for several."""
        for name in ("samples", "threads", "seed", "max_evaluations"):
            if not isinstance(getattr(self, name), int):
                where = f"--{name.replace('_', '-')}"
                raise UsageError(f"{getattr(self, name)!r} is not a whole number", where=where, hint="give a number")
        typed: dict[str, Any] = {"target": str(self.target), "plan_in": None if self.plan_in is None else Path(self.plan_in)}
        if self.evaluation is not None:
            typed["evaluation"] = Path(self.evaluation)
        if isinstance(self.exclude, str):
            typed["exclude"] = (self.exclude,)
        if isinstance(self.preprocess, str):
            from converter.calibration.preprocess import parse_preprocess

            typed["preprocess"] = parse_preprocess(self.preprocess)
        for name, value in typed.items():
            object.__setattr__(self, name, value)

    @property
    def widths(self) -> BitWidths:
        """The bits, whether they were given as a text or not."""
        return BitWidths.parse(self.bits) if isinstance(self.bits, str) else self.bits


def _one_of(name: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise UsageError(f"'{value}' is not known", where=name, hint=f"choose from {', '.join(known)}")
