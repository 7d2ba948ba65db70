"""What is to be measured, and what was: plain data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["FLOAT", "Cell", "Row", "cells_of"]

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
