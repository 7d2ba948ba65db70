"""What one case of a campaign gave."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

__all__ = ["MOST_MEGABYTES", "MOST_SECONDS", "Outcome", "complaints"]

MOST_SECONDS, MOST_MEGABYTES = 60.0, 2000.0
"""Of processor time and of memory, for the conversion of any small or damaged model."""

_MOST_LINES = 3


@dataclass(frozen=True)
class Outcome:
    """One case.

    Attributes:
        kind: of the campaign.
        seed: which repeats it.
        what: was tried, in a few words.
        endings: exit codes, or how else it ended.
        faults: what may not be; empty if all is well.
        seconds: of processor time that the slowest conversion took.
        megabytes: of memory that were held at most, with libraries.
        figures: numbers that are summed up over the campaign: SQNRs in dB by name.
    """

    kind: str
    seed: int
    what: str
    endings: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    seconds: float = 0.0
    megabytes: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)


def complaints(code: int, allowed: Collection[int], written: bool, err: str) -> list[str]:
    """What is wrong with a call of the command.

    Args:
        code: exit code.
        allowed: codes that are right.
        written: the output exists.
        err: what it wrote to stderr, quiet.
    """
    lines = [line for line in err.strip().splitlines() if not line.startswith("[")]
    found = []
    if code not in allowed:
        found.append(f"exit {code}: {lines[-1] if lines else 'no message'}")
    if written != (code == 0):
        found.append(f"exit {code}, and the output is {'there' if written else 'missing'}")
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if code and code in allowed and (not errors or len(lines) - errors[0] > _MOST_LINES):
        found.append(f"exit {code} with a message of {len(lines)} lines: {lines[:1]}")
    return found
