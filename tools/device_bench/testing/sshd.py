"""A private ssh server on the loopback, with keys of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from runtime_tests.testing.servers import free_port, running_server

SSHD = shutil.which("sshd", path=os.pathsep.join(("/usr/sbin", "/usr/local/sbin", os.environ.get("PATH", ""))))
"""The server's program; None where it is not installed."""

_SEPARATION = Path("/run/sshd")
"""An empty folder that the server wants when root starts it."""

_CONFIGURATION = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile {folder}/pid
PasswordAuthentication no
PermitRootLogin yes
StrictModes no
UsePAM no
"""


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Start it; gives what ``--ssh`` and ``--ssh-options`` take. The process ends with the block."""
    assert SSHD is not None
    if os.geteuid() == 0:
        _SEPARATION.mkdir(exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    port = free_port()
    (folder / "sshd_config").write_text(_CONFIGURATION.format(folder=folder, port=port))
    with running_server([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], port):
        known = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        yield f"{getpass.getuser()}@127.0.0.1", ["-F", "none", "-p", str(port), "-i", str(folder / "user"), *known]
