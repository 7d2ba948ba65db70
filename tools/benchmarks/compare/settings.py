"""What all rows of one table have in common, kept beside them: figures of other settings do not belong in the same table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from converter.errors import UsageError
from converter.load.files import write_files

__all__ = ["keep_settings"]

_FILE = "settings.json"


def keep_settings(folder: Path, settings: Mapping[str, object]) -> None:
    """Write the settings where there are none yet, else compare.

    Args:
        settings: by flag; plain JSON values.

    Raises:
        UsageError: the results there were measured with others, or the file is none of ours.
    """
    path = folder / _FILE
    if not path.exists():
        write_files({path: (json.dumps(settings, indent=2) + "\n").encode()})
        return
    try:
        before = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"not JSON: {error}", where=str(path), hint="give another --out, or remove the folder") from error
    for flag, value in settings.items():
        was = before.get(flag) if isinstance(before, dict) else None
        if was != value:
            raise UsageError(
                f"its results were measured with {flag} {was}, not {value}", where=str(path), hint="give another --out, or the same flags"
            )
