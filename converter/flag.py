"""What the command line says of a field of a record; :mod:`converter.cli.flags` makes its flags of this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["flag"]


def flag(
    text: str,
    metavar: str = "",
    *,
    kind: type[str | int | float | Path] = str,
    name: str = "",
    group: str = "conversion",
    many: bool = False,
) -> dict[str, Any]:
    """Metadata of a dataclass field that is a flag.

    Args:
        text: for ``--help``, which adds the default.
        metavar: what stands for the value; a switch has none.
        kind: what the text of the value is turned into.
        name: with its dashes; by default that of the field.
        group: under which ``--help`` lists it.
        many: it can be given again.
    """
    return {"flag": {"text": text, "metavar": metavar, "kind": kind, "name": name, "group": group, "many": many}}
