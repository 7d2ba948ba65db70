"""What cannot be a plan or a target is not read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from converter.system.text_files import read_text


def test_text_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("größer\n".encode())
    assert read_text(tmp_path / "file") == "größer\n"


def test_a_pipe_is_not_waited_for_and_a_device_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="a pipe or a device"):
            read_text(path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="larger"):
        read_text(tmp_path / "huge")
