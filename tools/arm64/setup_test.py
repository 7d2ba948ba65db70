from __future__ import annotations

from pathlib import Path

import pytest

from converter.errors import UsageError
from tools.arm64.setup import main


def test_without_debian_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--root", str(tmp_path / "arm64")]) == UsageError.exit_code
    assert capsys.readouterr().err.splitlines() == [
        "error: the program 'apt-get' is missing",
        "  at: fetching the lists of packages",
        "  do: this needs Debian 12",
    ]
