"""Outputs that a model gives as codes: what its metadata say of them, and the numbers that codes stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.quantization.parameters import QuantParams, dequantize

__all__ = ["OUTPUT_CODES", "output_codes_text", "output_grids", "with_numbers"]

OUTPUT_CODES = "bridgequant.output_codes"
"""Key of the metadata: a JSON object with the type, scale and zero point of each output that is given as codes."""


def output_codes_text(grids: Mapping[str, QuantParams]) -> str:
    """What the metadata say of outputs, by name; their parameters are per tensor. A number is scale * (code - zero_point)."""
    entries = {n: {"type": str(g.dtype), "scale": g.scale[0], "zero_point": g.zero_point[0]} for n, g in grids.items()}
    return json.dumps(entries)


def output_grids(metadata: Mapping[str, str]) -> dict[str, QuantParams]:
    """The quantization parameters of the outputs that are codes, by name; empty where the metadata name none.

    Raises:
        ValueError: the entry is damaged.
    """
    text = metadata.get(OUTPUT_CODES)
    if not text:
        return {}
    try:
        return {
            name: QuantParams((float(entry["scale"]),), (int(entry["zero_point"]),), 8, {"int8": True, "uint8": False}[entry["type"]])
            for name, entry in json.loads(text).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the metadata {OUTPUT_CODES} are damaged: {text[:60]}") from error


def with_numbers(outputs: Mapping[str, Any], grids: Mapping[str, QuantParams]) -> dict[str, npt.NDArray[Any]]:
    """The same outputs, with numbers (float32) in the place of codes."""
    return {n: dequantize(y, grids[n]) if n in grids and np.asarray(y).dtype == grids[n].dtype else y for n, y in outputs.items()}
