"""Conversions just before verification, and damage to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from converter.emit.builder import emit
from converter.load.model import Source, load
from converter.runtime.session import Feed
from converter.testing.sketch import Planned, feeds_for, plan_for
from converter.verify.verdict import Verdict, verify


@dataclass(frozen=True)
class Case:
    """A conversion just before verification."""

    source: Source
    planned: Planned
    feeds: list[Feed]

    def emitted(self) -> ir.Model:
        model: ir.Model = ir.from_proto(ir.to_proto(emit(self.planned.model, self.planned.plan, self.source.metadata)))
        return model

    def verify_emitted(self) -> Verdict:
        return self.verify(self.emitted())

    def verify(self, model: ir.Model, **rest: Any) -> Verdict:
        p = self.planned
        return verify(self.source, p.model, model, p.plan, p.offers, self.feeds, p.target, threads=1, **rest)


def saved(model: ir.Model, path: Path) -> Case:
    onnx.save(ir.to_proto(model), path)
    return Case(load(path), plan_for(model), list(feeds_for(model, 3, seed=7)))


def initializers(model: ir.Model, kind: str, suffix: str) -> list[ir.Value]:
    """Constants of an element type whose names end so."""
    wanted = getattr(ir.DataType, kind)
    return [
        v for n, v in model.graph.initializers.items() if v.const_value is not None and v.const_value.dtype == wanted and n.endswith(suffix)
    ]


def overwrite(value: ir.Value, change: Callable[[np.ndarray], np.ndarray]) -> None:
    assert value.const_value is not None
    array = value.const_value.numpy()
    value.const_value = ir.tensor(np.asarray(change(array), array.dtype), name=value.name)
