"""Everything that can go wrong, as one tree. Each error knows its exit code and what the user can do next.

::

    ConverterError            1  unexpected
    ├── UsageError            2  a flag makes no sense, or a path cannot be used
    ├── ModelError            3  the model is invalid or unsupported
    ├── CalibrationError      4  the calibration data cannot be used
    ├── VerificationError     5  the converted model failed its checks; nothing was written
    └── BoundMissedError      6  the model is sound, but a bound the user asked for was missed
"""

from __future__ import annotations

__all__ = [
    "BoundMissedError",
    "CalibrationError",
    "ConverterError",
    "ModelError",
    "UsageError",
    "VerificationError",
]


class ConverterError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: what is wrong, one sentence without a full stop.
        where: the file, node, tensor or flag concerned.
        hint: what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"error: {self.what}"]
        if self.where:
            lines.append(f"  at: {self.where}")
        if self.hint:
            lines.append(f"  do: {self.hint}")
        # names come from files: they must neither add lines nor reach the terminal as control codes
        return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)


class UsageError(ConverterError):
    """A flag makes no sense, or a path cannot be used."""

    exit_code = 2


class ModelError(ConverterError):
    """The model is invalid or unsupported."""

    exit_code = 3


class CalibrationError(ConverterError):
    """The calibration data cannot be used."""

    exit_code = 4


class VerificationError(ConverterError):
    """The converted model failed its checks."""

    exit_code = 5


class BoundMissedError(ConverterError):
    """A bound that the user asked for was missed."""

    exit_code = 6
