"""A diagnosis as plain lists and dicts, for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from converter.diagnosis.records import Diagnosis

__all__ = ["diagnosis_record"]


def diagnosis_record(diagnosis: Diagnosis) -> dict[str, Any]:
    """Every figure under its field's name. A grid with one scale has its ends beside it, as ``lowest`` and ``highest``."""
    record = asdict(diagnosis)
    for plain, tensor in zip(record["tensors"], diagnosis.tensors, strict=True):
        params = tensor.params
        if params is not None and params.axis is None:
            plain["params"] |= {"lowest": params.lowest, "highest": params.highest}
    return record
