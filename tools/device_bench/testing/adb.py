"""A stand-in for ``adb``: writes down the words that it is called with, and takes this machine for the device."""

from __future__ import annotations

import json
import sys
from pathlib import Path

_SCRIPT = """#!{python}
import json, os, shutil, subprocess, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
words = sys.argv[1:]
if words[0] == "-s":
    if words[1] != {serial!r}:
        sys.exit(f"adb: device '{{words[1]}}' not found")
    words = words[2:]
if words[0] == "shell":
    # adb joins what follows by spaces, and a shell of the device reads that
    sys.exit(subprocess.run(["sh", "-c", " ".join(words[1:]).replace("/data/local/tmp", {folder!r})]).returncode)
shutil.copyfile(words[1], words[2])
"""


def install_adb(folder: Path, serial: str = "R58N1") -> Path:
    """Write it into a new folder ``bin``, to be put in front of PATH; its device has temporary files in ``device``.

    Returns:
        the file that it writes its calls to, as lines of JSON.
    """
    log, programs, device = (folder / name for name in ("calls", "bin", "device"))
    programs.mkdir()
    device.mkdir()
    (programs / "adb").write_text(_SCRIPT.format(python=sys.executable, log=str(log), serial=serial, folder=str(device)))
    (programs / "adb").chmod(0o755)
    return log


def calls_in(log: Path) -> list[list[str]]:
    """What it was called with so far."""
    return [json.loads(line) for line in log.read_text().splitlines()]
