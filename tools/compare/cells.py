"""What is to be measured, and what was: plain data and the file that holds it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from converter.errors import UsageError

__all__ = ["FLOAT", "PEERS", "Cell", "Row", "append_row", "cells_of", "read_rows"]

FLOAT = "float"

PEERS = ("ort-static",)
"""Other tools: ONNX Runtime's own static quantization."""

_PEER_BITS = "W8A8"
"""The only width that peers have."""


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
        coverage: percent of multiply-accumulates that run in integer; 0 for float and where it was not looked at.
        seconds: conversion, processor time of one thread.
        megabytes: of the file.
        latency: float time over its time on this machine; 0 where that means nothing.
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


def cells_of(models: Sequence[str], methods: Sequence[str], widths: Sequence[str]) -> list[Cell]:
    """The matrix, float first; model by model."""
    cells = []
    for model in models:
        cells.append(Cell(model, FLOAT, ""))
        for bits in widths:
            cells += [Cell(model, m, bits) for m in methods if m not in PEERS or bits == _PEER_BITS]
    return cells


def read_rows(path: Path) -> list[Row]:
    """Rows of an earlier run; none if there is no file.

    Raises:
        UsageError: the file is something else.
    """
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream)
        if reader.fieldnames != [f.name for f in fields(Row)]:
            raise UsageError("this is no table of tools.compare", where=str(path), hint="give another --out, or remove the file")
        return [_row(line) for line in reader]


def _row(line: dict[str, str]) -> Row:
    texts = {"model", "method", "bits", "failure"}
    return Row(**{name: value if name in texts else float(value) for name, value in line.items()})  # type: ignore[arg-type]


def append_row(path: Path, row: Row) -> None:
    """Add a row to the file, with the heading if it is new."""
    new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Row)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(row).items()})
