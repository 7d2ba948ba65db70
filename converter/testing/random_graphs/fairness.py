"""When one conversion is worse than another: on fresh samples, by more than chance, and where the comparison means something."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from converter.runtime.session import Feed, open_session, run_session
from converter.verify.quality import sqnr

__all__ = ["GOOD_DB", "MOST_LOSS_DB", "Judgement", "judge"]

Array = npt.NDArray[Any]

MOST_LOSS_DB = 3.0
"""How much worse than ``mse`` the default method may be."""

GOOD_DB = 35.0
"""An output above this is good enough, whatever another method reaches."""

FLOAT_DB = 100.0
"""Above this, nothing that the output depends on is quantized: what the other conversion gained in speed has no counterpart there."""

ENOUGH_DB = 20.0
"""Of an output that the other conversion leaves to float."""

PERTURBATION = 1e-3
"""Of the inputs, relative to their standard deviation: far below what 8 bits resolve."""

_MOST_NOISE = 1e30
_RESAMPLINGS, _CONFIDENCE = 400, 0.02


@dataclass(frozen=True)
class Judgement:
    """One floating point output of two conversions.

    Attributes:
        output: its name.
        base_db: SQNR of what it is compared with.
        other_db: SQNR of what is judged; minus infinity where it gives a number that is none and float gives one.
        loss_db: how much worse it is at least, with 98 % confidence over the samples.
        perturbed_db: SQNR of the float model whose inputs are perturbed by 0.1 %.
    """

    output: str
    base_db: float
    other_db: float
    loss_db: float
    perturbed_db: float

    @property
    def worse(self) -> bool:
        """Worse by more than is allowed.

        An output that is good enough never is; it need not be as good where the other conversion leaves it to float. Nor
        is one where the float network is chaotic, which is to say that an invisible change of its inputs changes the
        output as much as quantization did: which of two conversions comes off better is chance there.
        """
        enough = ENOUGH_DB if self.base_db >= FLOAT_DB else GOOD_DB
        if self.other_db >= enough or self.other_db >= self.perturbed_db - MOST_LOSS_DB:
            return False
        return self.loss_db > MOST_LOSS_DB


def judge(model: onnx.ModelProto, conversions: Sequence[Path], feeds: Sequence[Feed]) -> list[Judgement]:
    """Compare the second conversion of a model with the first, output by output.

    Samples are drawn again and again with replacement (a bootstrap): the loss counts that 98 % of the draws show. A
    small output, a rare outlier or a threshold that a few samples cross give the one or the other method a few
    decibels by chance; such luck does not survive the draws.
    """
    wanted = _run(model, feeds)
    base, other = (_run(onnx.load(path), feeds) for path in conversions)
    perturbed = _run(model, _perturbed(feeds))
    judged = []
    for name in dict.fromkeys(o.name for o in model.graph.output):
        arrays = [[row[name] for row in rows] for rows in (wanted, base, other, perturbed)]
        same = all(len({a.shape for a in row}) == 1 for row in zip(*arrays, strict=True))
        comparable = np.issubdtype(arrays[0][0].dtype, np.floating) and same and all(np.isfinite(a).all() for a in arrays[0])
        if comparable and any(a.any() for a in arrays[0]):
            flat = [[a.astype(np.float64).reshape(-1) for a in rows] for rows in arrays]
            whole = [np.concatenate(rows) for rows in flat]
            loss = _certain_loss(*([np.square(x - y).sum() for x, y in zip(flat[0], rows, strict=True)] for rows in flat[1:3]))
            base_db, other_db, perturbed_db = (sqnr(whole[0], w) if np.isfinite(w).all() else -math.inf for w in whole[1:])
            judged.append(Judgement(name, base_db, other_db, loss, perturbed_db))
    return judged


def _run(model: onnx.ModelProto, feeds: Sequence[Feed]) -> list[Mapping[str, Array]]:
    session = open_session(model, threads=1)
    return [run_session(session, feed) for feed in feeds]


def _perturbed(feeds: Sequence[Feed]) -> list[Feed]:
    generator = np.random.default_rng(0)

    def moved(array: Array) -> Array:
        step = PERTURBATION * float(array.astype(np.float32).std())
        if array.dtype == np.uint8:  # as much, by single steps of a few pixels
            steps = (generator.random(array.shape) < step**2) * generator.choice([-1, 1], array.shape)
            changed: Array = np.clip(array + steps, 0, 255).astype(np.uint8)
            return changed
        if not np.issubdtype(array.dtype, np.floating):
            return array
        result: Array = (array + step * generator.standard_normal(array.shape)).astype(array.dtype)
        return result

    return [{name: moved(array) for name, array in feed.items()} for feed in feeds]


def _certain_loss(base: Sequence[float], other: Sequence[float]) -> float:
    """How many decibels the second noise is above the first at least, over draws of samples."""
    draws = np.random.default_rng(0).integers(0, len(base), (_RESAMPLINGS, len(base)))
    # what is no number is worse than all numbers
    noise = [np.clip(np.nan_to_num(errors, nan=_MOST_NOISE)[draws].sum(axis=1), 1e-30, _MOST_NOISE) for errors in (base, other)]
    return float(np.quantile(10 * np.log10(noise[1] / noise[0]), _CONFIDENCE))
