"""Target files: a :class:`converter.targets.target.Target` as TOML, read with every mistake named, and written.

::

    name = "my-board"                   description = "..."             unit = "instructions"
    architectures = ["aarch64"]         activations = "int8"            depthwise_weight_bits = 8
    largest_pair = 32767                # only where dense kernels add pairs of products in 16 bits
    onnxruntime = "1.32.0"              # version of the runtime that was measured
    call = 22000.0                      # one inference without operators
    margin = 0.1                        # all stays float unless this share of the float model's cost is saved

    [session_settings.x86_64]           # under which a machine of another architecture runs these kernels
    "session.qdqisint8allowed" = "1"

    [quantize]
    node = 3000.0                       # cost = node + element x number of elements
    element = 2.75
    [dequantize]
    element = 1.37
    [other]                             # float operators that are not listed
    element = 5.0

    [costs.Conv]                        # by kind of operator; without "integer" it always runs in float
    float = { mac = 0.36, element = 1.0 }
    integer = { mac = 0.14, element = 1.0 }

    [fit]                               # free text and figures about where the costs come from

    [second]                            # may be left out: costs in another unit, which are told and decide nothing
    unit = "cycles"
    call = 13000.0
    [second.quantize]                   # and so on: second.dequantize, .other, .costs, .fit and onnxruntime, as above
    element = 1.5
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from converter.errors import UsageError
from converter.system.text_files import read_text
from converter.targets.target import FEATURES, Cost, Prices, Target

__all__ = ["FILE_SUFFIX", "read_target", "target_text"]

FILE_SUFFIX = ".toml"

_HINT = "see docs/targets.md, or write one with python -m tools.profile.target"
_CODES = {"int8": True, "uint8": False}
_TEXTS = ("name", "description", "unit", "activations")
_PRICED = ("unit", "onnxruntime", "call", "quantize", "dequantize", "other", "costs", "fit")
_KNOWN = (*_TEXTS, "architectures", "depthwise_weight_bits", "largest_pair", "session_settings", "margin", "second", *_PRICED)
_NARROWEST, _WIDEST = 2, 8


def read_target(path: Path, where: str) -> Target:
    """Read a target file.

    Raises:
        UsageError: it cannot be read, or says something that makes no sense.
    """
    try:
        content = tomllib.loads(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"the target cannot be read: {reason}", where=where, hint="check the path") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError among them, and what tomllib's own parser runs into
        raise UsageError(f"the target is not TOML: {error}", where=where, hint=_HINT) from None
    return _Reader(where).target(content)


class _Reader:
    """Checks as it reads; knows the file for messages."""

    def __init__(self, where: str) -> None:
        self.where = where

    def wrong(self, what: str) -> NoReturn:
        raise UsageError(what, where=self.where, hint=_HINT)

    def target(self, content: Mapping[str, Any]) -> Target:
        self.only(content, _KNOWN, "the target")
        texts = {key: self.text(content, key) for key in _TEXTS}
        if texts["activations"] not in _CODES:
            self.wrong(f"activations are '{texts['activations']}', which is neither int8 nor uint8")
        bits = content.get("depthwise_weight_bits", _WIDEST)
        if type(bits) is not int or not _NARROWEST <= bits <= _WIDEST:
            self.wrong(f"depthwise_weight_bits is {bits!r} instead of {_NARROWEST} to {_WIDEST}")
        pair = content.get("largest_pair")
        if pair is not None and (type(pair) is not int or pair < 2 * 255):
            self.wrong(f"largest_pair is {pair!r}, too small for weights of 2 bits beside activations of 8")
        target = Target(
            name=texts["name"],
            description=texts["description"],
            architectures=self.texts(content, "architectures"),
            signed_activations=_CODES[texts["activations"]],
            largest_pair=pair,
            depthwise_weight_bits=bits,
            session_settings=self.settings(content),
            margin=min(self.number(content.get("margin", 0.0), "margin"), 1.0),
            **self.priced(content),
        )
        return target if "second" not in content else replace(target, second=self.second(target, self.table(content, "second")))

    def priced(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """What a target says of costs in one unit, by the fields of a Target."""
        quantize, dequantize = (self.prices(content, key, ("node", "element")) for key in ("quantize", "dequantize"))
        if any(quantize.get(f, 0.0) < dequantize.get(f, 0.0) for f in ("node", "element")) or not dequantize.get("element"):
            self.wrong("DequantizeLinear must cost something per element, and QuantizeLinear no less, per element and per node")
        return {
            "unit": self.text(content, "unit"),
            "quantize_element": quantize["element"],
            "dequantize_element": dequantize["element"],
            "costs": self.costs(content),
            "quantize_node": quantize.get("node", 0.0),
            "dequantize_node": dequantize.get("node", 0.0),
            "call": self.number(content.get("call", 0.0), "call"),
            "other": self.prices(content, "other") if "other" in content else {},
            "fit": self.table(content, "fit"),
            "onnxruntime": self.text(content, "onnxruntime") if "onnxruntime" in content else "",
        }

    def second(self, target: Target, content: Mapping[str, Any]) -> Target:
        """The same machines with costs in the second unit."""
        reader = _Reader(f"{self.where}, [second]")
        reader.only(content, _PRICED, "it")
        found = replace(target, **reader.priced(content))
        if found.unit == target.unit:
            reader.wrong(f"the second unit is {found.unit}, like the first")
        for kind, cost in target.costs.items():
            if cost.integer is not None and (kind not in found.costs or found.costs[kind].integer is None):
                reader.wrong(f"costs.{kind}.integer is missing, which the first unit has")
        return found

    def only(self, table: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
        for key in table:
            if key not in known:
                self.wrong(f"{what} has an unknown entry '{key}'; there can be {', '.join(known)}")

    def table(self, content: Mapping[str, Any], key: str) -> dict[str, Any]:
        found = content.get(key, {})
        if not isinstance(found, dict):
            self.wrong(f"'{key}' is not a table")
        return found

    def text(self, content: Mapping[str, Any], key: str) -> str:
        found = content.get(key)
        if not isinstance(found, str) or not found or not found.isprintable():
            self.wrong(f"'{key}' is missing or is not a line of text")
        return found

    def texts(self, content: Mapping[str, Any], key: str) -> tuple[str, ...]:
        found = content.get(key, [])
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            self.wrong(f"'{key}' is not a list of texts")
        return tuple(found)

    def number(self, found: Any, what: str) -> float:
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0.0 <= found <= sys.float_info.max:
            self.wrong(f"{what} is {found!r}, which is not a cost: 0 or more")
        return float(found)

    def prices(self, content: Mapping[str, Any], key: str, known: tuple[str, ...] = tuple(FEATURES), inside: str = "") -> dict[str, float]:
        name = f"{inside}{key}"
        if key not in content:
            self.wrong(f"'{name}' is missing")
        table = self.table(content, key)
        self.only(table, known, f"'{name}'")
        return {feature: self.number(price, f"{name}.{feature}") for feature, price in table.items()}

    def costs(self, content: Mapping[str, Any]) -> dict[str, Cost]:
        table = self.table(content, "costs")
        found = {}
        for kind in table:
            entry = self.table(table, kind)
            self.only(entry, ("float", "integer"), f"costs.{kind}")
            floats = self.prices(entry, "float", inside=f"costs.{kind}.")
            if not any(floats.values()):
                self.wrong(f"costs.{kind}.float is nothing: it would never run in integer")
            found[kind] = Cost(floats, self.prices(entry, "integer", inside=f"costs.{kind}.") if "integer" in entry else None)
        if not any(cost.integer is not None for cost in found.values()):
            self.wrong("no operator has an integer form: there is nothing to convert")
        return found

    def settings(self, content: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        table = self.table(content, "session_settings")
        for architecture in table:
            entry = self.table(table, architecture)
            if not all(isinstance(value, str) for value in entry.values()):
                self.wrong(f"a setting in session_settings.{architecture} is not text")
        return table


def target_text(target: Target) -> str:
    """A target as TOML; :func:`read_target` gives the same target again. The same target gives the same text."""
    lines = [f"{key} = {_value(value)}" for key, value in _plain(target).items()]
    for architecture, settings in target.session_settings.items():
        lines += ["", f"[session_settings.{_key(architecture)}]", *(f"{_key(key)} = {_value(value)}" for key, value in settings.items())]
    lines += _price_lines(target)
    if target.second is not None:
        lines += ["", "[second]", *_entries(_unit(target.second) | {"call": target.second.call}), *_price_lines(target.second, "second.")]
    return "\n".join(lines) + "\n"


def _price_lines(target: Target, inside: str = "") -> list[str]:
    lines = ["", f"[{inside}quantize]", *_entries({"node": target.quantize_node, "element": target.quantize_element})]
    lines += ["", f"[{inside}dequantize]", *_entries({"node": target.dequantize_node, "element": target.dequantize_element})]
    lines += ["", f"[{inside}other]", *_entries(target.other)]
    for kind, cost in target.costs.items():
        lines += ["", f"[{inside}costs.{_key(kind)}]", f"float = {_inline(cost.float)}"]
        lines += [f"integer = {_inline(cost.integer)}"] if cost.integer is not None else []
    return [*lines, "", f"[{inside}fit]", *_entries(target.fit)] if target.fit else lines


def _unit(target: Target) -> dict[str, Any]:
    return {"unit": target.unit, **({"onnxruntime": target.onnxruntime} if target.onnxruntime else {})}


def _plain(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "description": target.description,
        **_unit(target),
        "architectures": list(target.architectures),
        "activations": next(text for text, signed in _CODES.items() if signed == target.signed_activations),
        **({} if target.largest_pair is None else {"largest_pair": target.largest_pair}),
        "depthwise_weight_bits": target.depthwise_weight_bits,
        "call": target.call,
        **({"margin": target.margin} if target.margin else {}),
    }


def _entries(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items()]


def _inline(prices: Prices) -> str:
    return "{ " + ", ".join(f"{_key(feature)} = {_value(price)}" for feature, price in prices.items()) + " }" if prices else "{}"


def _key(key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key)
    return key if bare else _value(key)


def _value(value: Any) -> str:
    """A TOML value: text, a whole or decimal number, or a list of them."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)
