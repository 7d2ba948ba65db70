"""Fields of a record that are flags of the command line; :mod:`converter.cli.flags` makes them."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any

__all__ = ["flag"]


def flag(
    default: Any,
    text: str,
    metavar: str = "",
    *,
    kind: type[str | float | Path] = str,
    name: str = "",
    group: str = "conversion",
    many: bool = False,
) -> Any:
    """A dataclass field with what the command line says of it.

    Args:
        default: of the field, or what makes one when it is called.
        text: for ``--help``, which adds the default.
        metavar: what stands for the value; a switch has none.
        kind: what the text of a value is turned into, where the default does not tell.
        name: with its dashes; by default that of the field.
        group: under which ``--help`` lists it.
        many: it can be given again.
    """
    metadata = {"flag": {"text": text, "metavar": metavar, "kind": kind, "name": name, "group": group, "many": many}}
    return field(default_factory=default, metadata=metadata) if callable(default) else field(default=default, metadata=metadata)
