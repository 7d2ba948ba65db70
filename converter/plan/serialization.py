"""A plan as JSON, and back.

What is written follows from the dataclasses: each field under its name, but for one that is empty, null or false by default and in fact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from converter.errors import UsageError
from converter.plan.records import Plan, TensorPlan
from converter.quantization.bit_widths import BitWidths
from converter.transforms.registry import TRANSFORMS
from converter.transforms.transform import Transform

__all__ = ["plan_from_json", "plan_to_json"]

FORMAT = "bridgequant-plan"
VERSION = 2

_APART = ("bits", "transforms")
"""Fields of a plan that are read in another way than the others."""

_WORDS = {str: "a text", int: "a number", float: "a number", bool: "true or false"}


def plan_to_json(plan: Plan) -> str:
    """The plan as indented JSON with a stable order; lists of numbers stand on one line."""
    record = {"format": FORMAT, "version": VERSION, "method": plan.method, "bits": str(plan.bits), "target": plan.target}
    if plan.io != "float":
        record["io"] = plan.io
    if plan.source:
        record["source"] = plan.source
    for part in (*plan.transforms, {"stored": plan.stored} if plan.stored else {}, {"tensors": plan.tensors, "ops": plan.ops}):
        record |= _plain(part)
    text = json.dumps(record, indent=1)
    # a line break never stands inside a JSON string, so this finds lists only
    return re.sub(r"\[\n\s*([-+.eE\d,\s]*?)\s*\n\s*\]", lambda found: "[" + " ".join(found[1].split()) + "]", text) + "\n"


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        given = {field: getattr(value, field.name) for field in fields(value)}
        return {field.name: _plain(each) for field, each in given.items() if not (_may_lack(field) and _is_empty(each))}
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _may_lack(field: Field[Any]) -> bool:
    return field.default_factory is not MISSING or _is_empty(field.default)


def _is_due(field: Field[Any]) -> bool:
    """True if a plan has to say it: what has no default, and how many bits codes have and of which sign."""
    return (field.default is MISSING and field.default_factory is MISSING) or field.name in ("bits", "signed")


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", (), {})  # zero is a number


def plan_from_json(text: str, where: Path) -> Plan:
    """Read a plan back.

    Raises:
        UsageError: not a plan of this format, or a field is missing or wrong.
    """
    hint = "write one with --plan-out and edit that"
    try:
        record = json.loads(text)
        if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") not in (1, VERSION):
            raise UsageError(f"not a plan of format {FORMAT} version {VERSION}", where=f"--plan-in {where}", hint=hint)
        if record["version"] == 1:
            record = _modern(record)
        known = {"format", "version", *_types(Plan), *(kind.key for kind in TRANSFORMS)} - {"transforms"}
        for key in record.keys() - known:
            raise ValueError(f"the plan has no '{key}'")
        added = {"io": "float", "stored": {}, "source": ""} | record  # which older plans have not
        given = {name: _read(kind, added[name], name) for name, kind in _types(Plan).items() if name not in _APART}
        return Plan(**given, bits=_bits(record), transforms=_transforms(record))
    except json.JSONDecodeError as error:
        raise UsageError(f"the plan is not JSON: {error}", where=f"--plan-in {where}", hint=hint) from None
    except RecursionError:
        raise UsageError("the plan is nested too deeply", where=f"--plan-in {where}", hint=hint) from None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"the plan is damaged: {type(error).__name__} {error}", where=f"--plan-in {where}", hint=hint) from None


_OLD_KEYS = {
    "fate": "kind",
    "grid": "params",
    "gate": "coefficients",
    "folds": "equalizations",
    "curves": "nonuniform_quantizers",
    "levels": "constant_gates",
}
_OLD_VALUES = {("runs", "enclosed"): "fake-quantized", ("writes", "inside"): "fused"}


def _modern(record: Mapping[str, Any]) -> dict[str, Any]:
    """A plan of version 1 in the words of version 2."""

    def renamed(entry: Any) -> Any:
        if not isinstance(entry, Mapping):
            return entry
        if any(new in entry for old, new in _OLD_KEYS.items() if old in entry):
            raise ValueError("an entry has words of both versions")
        return {
            _OLD_KEYS.get(key, key): _OLD_VALUES.get((key, value), value) if isinstance(value, str) else value
            for key, value in entry.items()
        }

    record = renamed(record)
    parts = {part: record[part] for part in ("tensors", "ops", "nonuniform_quantizers") if isinstance(record.get(part), Mapping)}
    return {**record, **{part: {name: renamed(entry) for name, entry in entries.items()} for part, entries in parts.items()}}


def _bits(record: Mapping[str, Any]) -> BitWidths:
    try:
        return BitWidths.parse(_read(str, record["bits"], "bits"))
    except UsageError as error:
        raise ValueError(error.what) from None


def _transforms(record: Mapping[str, Any]) -> tuple[Transform, ...]:
    return tuple(_read(kind, {kind.key: record[kind.key]}, kind.key) for kind in TRANSFORMS if record.get(kind.key, {}) != {})


@cache
def _types(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _read(kind: Any, value: Any, name: str) -> Any:
    """What JSON says of a field, as the type of the field. Nothing is turned into it but a whole number into a float."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _read(arguments[0], value, name)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{name} '{value}', which is none of {', '.join(arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"'{name}' is {value!r}, but numbers stand in lists")
        return tuple(_read(arguments[0], each, name) for each in value)
    if origin is not None or is_dataclass(kind):
        if not isinstance(value, dict):
            raise TypeError(f"'{name}' is not an object")
        return _record(kind, value, name) if origin is None else {arguments[0](k): _read(arguments[1], v, name) for k, v in value.items()}
    if type(value) is not kind and (kind is not float or type(value) is not int):  # a bool is an int to isinstance
        raise TypeError(f"'{name}' is {value!r} where {_WORDS[kind]} belongs")
    return kind(value)


def _record(kind: Any, record: Mapping[str, Any], name: str) -> Any:
    types = _types(kind)
    for key in (*record, *(field.name for field in fields(kind) if _is_due(field))):
        if key not in types:
            raise ValueError(f"'{name}' has no '{key}'")
        if key not in record:
            raise KeyError(key)
    if kind is TensorPlan and (record["kind"] == "float") != (record.get("params") is None):
        raise ValueError(f"kind '{record['kind']}' with params {record.get('params')}")
    return kind(**{key: _read(types[key], value, key) for key, value in record.items()})
