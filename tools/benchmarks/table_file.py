"""Tables of measurements in CSV files that grow row by row; a row is a dataclass of texts, numbers and numbers that may be missing."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import Field, asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, get_type_hints

from converter.errors import UsageError

__all__ = ["append_row", "read_rows"]


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


R = TypeVar("R", bound=_Dataclass)


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """Rows of an earlier run; none if there is no file.

    Raises:
        UsageError: the file is something else.
    """
    if not path.exists():
        return []
    types = get_type_hints(kind)
    # of a run that was cut off the last line may be a part of one
    with io.StringIO(_whole_lines(path.read_text())) as stream:
        reader = csv.DictReader(stream)
        if reader.fieldnames != list(types):
            raise UsageError("this is no table of this command", where=str(path), hint="give another --out, or remove the file")
        return [kind(**_values(line, types)) for line in reader]


def _values(line: Mapping[str, str], types: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in line.items():
        if types[name] is str:
            values[name] = text
        else:
            values[name] = float(text) if text else None
    return values


def _whole_lines(text: str) -> str:
    return text[: text.rfind("\n") + 1]


def append_row(path: Path, row: _Dataclass) -> None:
    """Add a row to the file, in place of a part of one that a run left, and with the heading if it is new."""
    if path.exists():
        os.truncate(path, len(_whole_lines(path.read_text()).encode()))
    new = not path.exists() or not path.stat().st_size
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(row)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(row).items()})
