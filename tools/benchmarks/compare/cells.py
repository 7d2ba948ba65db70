"""What is to be measured, and what was: plain data and the file that holds it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from converter.errors import UsageError

__all__ = ["FLOAT", "Cell", "Row", "append_row", "cells_of", "read_rows"]

FLOAT = "float"


@dataclass(frozen=True)
class Cell:
    """One measurement: a model by name, how it is quantized, at which width (empty for float)."""

    model: str
    method: str
    bits: str


@dataclass(frozen=True)
class Row:
    """One measurement that was made.

    Attributes:
        model: name.
        method: ``float``, a method or a peer.
        bits: empty for float.
        top1: percent, all test images.
        drop: points below float.
        sqnr_db: of the scores of all test images against float.
        agreement: percent of test images whose answer is float's.
        coverage: percent of multiply-accumulates that run in integer; 0 for float.
        seconds: conversion, processor time of one thread.
        megabytes: of the file.
        latency: float time over its time on this machine, one thread; 0 for float and as long as it was not measured.
        failure: why there are no figures.
    """

    model: str
    method: str
    bits: str
    top1: float = 0.0
    drop: float = 0.0
    sqnr_db: float = 0.0
    agreement: float = 0.0
    coverage: float = 0.0
    seconds: float = 0.0
    megabytes: float = 0.0
    latency: float = 0.0
    failure: str = ""

    @property
    def cell(self) -> Cell:
        """What was measured."""
        return Cell(self.model, self.method, self.bits)


def cells_of(models: Sequence[str], columns: Mapping[str, Collection[str]]) -> list[Cell]:
    """The matrix, float first; model by model, width by width.

    Args:
        columns: the widths that each has.
    """
    widths = list(dict.fromkeys(bits for some in columns.values() for bits in some))
    cells = []
    for model in models:
        cells.append(Cell(model, FLOAT, ""))
        for bits in widths:
            cells += [Cell(model, column, bits) for column, some in columns.items() if bits in some]
    return cells


def read_rows(path: Path) -> list[Row]:
    """Rows of an earlier run; none if there is no file.

    Raises:
        UsageError: the file is something else.
    """
    if not path.exists():
        return []
    # of a run that was cut off the last line may be a part of one
    with io.StringIO(_whole_lines(path.read_text())) as stream:
        reader = csv.DictReader(stream)
        if reader.fieldnames != [f.name for f in fields(Row)]:
            raise UsageError("this is no table of tools.benchmarks.compare", where=str(path), hint="give another --out, or remove the file")
        return [_row(line) for line in reader]


def _row(line: dict[str, str]) -> Row:
    texts = {"model", "method", "bits", "failure"}
    return Row(**{name: value if name in texts else float(value) for name, value in line.items()})  # type: ignore[arg-type]


def _whole_lines(text: str) -> str:
    return text[: text.rfind("\n") + 1]


def append_row(path: Path, row: Row) -> None:
    """Add a row to the file, in place of a part of one that a run left, and with the heading if it is new."""
    if path.exists():
        os.truncate(path, len(_whole_lines(path.read_text()).encode()))
    new = not path.exists() or not path.stat().st_size
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Row)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(row).items()})
