"""What a comparison holds: plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from converter.diagnosis.json_record import diagnosis_record
from converter.diagnosis.records import Diagnosis, TensorFigures

__all__ = ["Comparison", "OutputFigures", "Side", "change_of", "comparison_record"]


@dataclass(frozen=True)
class OutputFigures:
    """How close an output is to float.

    Attributes:
        name: of it.
        sqnr_db: against float; None where it is not known, or for integers.
        agreement: share of places with the same highest score, or of equal integers; None where it does not apply.
    """

    name: str
    sqnr_db: float | None
    agreement: float | None = None


@dataclass(frozen=True)
class Side:
    """One of the two that are compared.

    Attributes:
        name: of its file.
        kind: ``float``, ``model`` (int8) or ``plan``.
        bytes: size of a model; None of a plan.
        predicted: cost of one inference in the target's unit, of an int8 model as its file spells it.
            None where that holds integer operators.
        coverage: share of multiply-accumulates that ran in integer, or are planned to.
        outputs: against float.
        diagnosis: tensor by tensor; None of the float model.
        second: the same cost in the target's second unit; None also where it has none.
    """

    name: str
    kind: str
    bytes: int | None
    predicted: float | None
    coverage: float
    outputs: tuple[OutputFigures, ...]
    diagnosis: Diagnosis | None
    second: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Two sides and the samples they were compared on.

    Attributes:
        first: what the second is compared with.
        second: whose network the page shows; never the float model.
        floats: name of the float model.
        calibration: a sentence on the samples.
        samples: how many of them were compared on.
        target: whose prices count.
        unit: of these.
        notes: sentences on what was assumed.
        second_unit: of the same prices; empty if the target has one unit only.
    """

    first: Side
    second: Side
    floats: str
    calibration: str
    samples: int
    target: str
    unit: str
    notes: tuple[str, ...] = ()
    second_unit: str = ""

    @property
    def costs(self) -> tuple[tuple[str, float | None, float | None], ...]:
        """Unit and cost of both sides, for each unit of the target."""
        first = (self.unit, self.first.predicted, self.second.predicted)
        return (first, (self.second_unit, self.first.second, self.second.second)) if self.second_unit else (first,)

    @property
    def gained(self) -> tuple[str, ...]:
        """What the second has over the first."""
        return tuple(_changes(self, better=True)) or ("Nothing that was measured.",)

    @property
    def lost(self) -> tuple[str, ...]:
        """What the first has over the second."""
        return tuple(_changes(self, better=False)) or ("Nothing that was measured.",)

    @property
    def next(self) -> str:
        """What to do now."""
        falls = falling(self)
        if falls and falls[0][1] >= 1.0:
            name, fall = falls[0]
            return f"Look at '{name}' first: its accumulated SQNR falls by {fall:.1f} dB, the most of all tensors."
        if self.first.kind == "float":
            return "Measure the accuracy of both on labelled data; the tensors that do most harm stand below."
        return "No tensor is worse by a decibel or more: let speed and size decide."


def change_of(before: TensorFigures | None, after: TensorFigures) -> float | None:
    """By how many decibels the accumulated SQNR of a tensor rises; None if one is not known.

    Nor where one side alone was equalized there: with another factor in each channel, other channels weigh most.
    """
    if before is None or before.accumulated_db is None or after.accumulated_db is None:
        return None
    if (before.equalization == "applied") != (after.equalization == "applied"):
        return None
    return after.accumulated_db - before.accumulated_db


def falling(comparison: Comparison) -> list[tuple[str, float]]:
    """Tensors whose accumulated SQNR is lower on the second side, by how many decibels, the largest fall first."""
    before = {} if comparison.first.diagnosis is None else {t.name: t for t in comparison.first.diagnosis.tensors}
    falls = []
    for tensor in comparison.second.diagnosis.tensors if comparison.second.diagnosis is not None else ():
        change = change_of(before.get(tensor.name), tensor)
        if change is not None:
            falls.append((tensor.name, -change))
    return sorted((f for f in falls if f[1] > 0.0), key=lambda f: -f[1])


def _changes(comparison: Comparison, *, better: bool) -> list[str]:
    """Sentences on the figures in which the second side is better, or worse."""
    one, other = comparison.first, comparison.second
    found = []
    costs = (
        (f"predicted cost{f' in {unit}' if place else ''}", before, after) for place, (unit, before, after) in enumerate(comparison.costs)
    )
    for what, before, after in (("size of the file", one.bytes, other.bytes), *costs):
        share = f"{after / before:.0%}" if before and after else "100%"
        if before and after and share != "100%" and (after < before) == better:
            found.append(f"The {what} is {share} of that of {one.name}.")
    if other.coverage != one.coverage and (other.coverage > one.coverage) == better:
        found.append(f"{other.coverage:.1%} of the multiply-accumulates run in integer, in {one.name} {one.coverage:.1%}.")
    before_db = {o.name: o.sqnr_db for o in one.outputs}
    for output in other.outputs:
        old, new = before_db.get(output.name), output.sqnr_db
        if old is not None and new is not None and new != old and (new > old) == better:
            found.append(f"Output '{output.name}' has {new:.1f} dB SQNR against float, in {one.name} {_decibels(old)}.")
    return found


def _decibels(db: float) -> str:
    return "it is exact" if db >= 200.0 else f"{db:.1f} dB"


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """Every figure under its field's name, for JSON."""
    record = asdict(comparison)
    sides: Sequence[tuple[str, Side]] = (("first", comparison.first), ("second", comparison.second))
    for key, side in sides:
        record[key]["diagnosis"] = None if side.diagnosis is None else diagnosis_record(side.diagnosis)
    record["summary"] = {"gained": comparison.gained, "lost": comparison.lost, "next": comparison.next}
    record["falling"] = [{"tensor": name, "db": db} for name, db in falling(comparison)[:10]]
    return record
