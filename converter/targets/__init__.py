"""Targets: which integer kernels a machine class has, of which types, and what float and integer forms cost there.

Those that are built in are data files in ``machines/``; :func:`find_target` reads others.
:mod:`converter.targets.target_file` says what is in such a file, :mod:`converter.targets.costs` what costs depend on.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from converter.errors import UsageError
from converter.targets.target import Cost, Prices, Target
from converter.targets.target_file import FILE_SUFFIX, read_target

__all__ = ["DEFAULT_TARGET", "FILE_SUFFIX", "TARGETS", "TARGET_NAMES", "Cost", "Prices", "Target", "find_target", "other_machines"]

DEFAULT_TARGET = "arm64"

TARGET_NAMES = (DEFAULT_TARGET, "arm64-v8.0", "arm64-a55", "arm64-i8mm", "arm64-sme", "x86", "x86-vnni", "web")


class _BuiltIn(Mapping[str, Target]):
    """Reads a file when its target is asked for: whoever only imports the package opens none."""

    def __getitem__(self, name: str) -> Target:
        if name not in TARGET_NAMES:
            raise KeyError(name)
        return _read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(TARGET_NAMES)

    def __len__(self) -> int:
        return len(TARGET_NAMES)


@functools.cache
def _read(name: str) -> Target:
    return read_target(Path(__file__).parent / "machines" / f"{name}{FILE_SUFFIX}", f"target {name}")


TARGETS: Mapping[str, Target] = _BuiltIn()


def find_target(text: str) -> Target:
    """A target by name, or from a file whose name ends in ``.toml``.

    Raises:
        UsageError: there is none of that name, or the file is not a sound target.
    """
    if text in TARGETS:
        return TARGETS[text]
    if text.endswith(FILE_SUFFIX):
        return read_target(Path(text), f"--target {text}")
    listed = f"choose from {', '.join(TARGET_NAMES)}, or give a file that ends in {FILE_SUFFIX}"
    hint = f"{listed}; phones and boards are arm64, PCs x86, browsers web"
    raise UsageError(f"'{text}' is not known", where="--target", hint=hint)


def other_machines(name: str) -> dict[str, str]:
    """The machines of all targets but one: a description of each by the target's name."""
    return {other: TARGETS[other].machines for other in TARGET_NAMES if other != name}
