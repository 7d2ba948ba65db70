from __future__ import annotations

from pathlib import Path

import pytest

from converter.errors import UsageError
from tools.arm64 import setup
from tools.arm64.setup import main


def test_without_debian_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--root", str(tmp_path / "arm64")]) == UsageError.exit_code
    assert capsys.readouterr().err.splitlines() == [
        "error: the program 'apt-get' is missing",
        "  at: fetching the lists of packages",
        "  do: this needs Debian 12",
    ]


def test_llvm_is_installed_only_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stand-in for apt-get writes down what it is asked for and leaves programs that say their version."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(setup, "set_up", lambda env, tell: None)
    monkeypatch.setattr(setup, "is_installed", lambda: (tmp_path / "llvm-mca-19").exists())
    apt = f"""#!/bin/sh
echo "$@" >> {tmp_path}/calls
for name in llvm-mc-19 llvm-mca-19; do
  printf '#!/bin/sh\\necho "  Debian LLVM version 19.1.7"\\n' > {tmp_path}/$name
  chmod 755 {tmp_path}/$name
done
"""
    (tmp_path / "apt-get").write_text(apt)
    (tmp_path / "apt-get").chmod(0o755)
    assert main(["--runtime", "newest"]) == 0
    assert not (tmp_path / "calls").exists()
    assert main(["--runtime", "newest", "--cycles"]) == 0
    assert main(["--runtime", "newest", "--cycles"]) == 0
    assert (tmp_path / "calls").read_text() == "install --yes --no-install-recommends llvm-19\n"
    assert capsys.readouterr().out.splitlines().count("ready: LLVM 19.1.7") == 2
