"""Fixtures of these tests: a small model, its conversion and its plan as files; a device behind each way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
import pytest

from converter.plan.serialization import plan_to_json
from converter.testing.sketch import classifier, emitted, plan_for
from tools.device_bench.testing.adb import install_adb
from tools.device_bench.testing.converted import Converted
from tools.device_bench.testing.sshd import SSHD, ssh_server


@pytest.fixture
def converted(tmp_path: Path) -> Converted:
    files = Converted(tmp_path / "float.onnx", tmp_path / "int8.onnx", tmp_path / "plan.json")
    planned = plan_for(classifier(), "arm64")
    files.floats.write_bytes(ir.to_proto(classifier()).SerializeToString())
    files.int8.write_bytes(emitted(planned, {"bridgequant.target": "arm64", "bridgequant.bits": "W8A8"}).SerializeToString())
    files.plan.write_text(plan_to_json(planned.plan))
    return files


@pytest.fixture
def adb_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the stand-in, which is found as adb now, writes down how it is called."""
    log = install_adb(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return log


@pytest.fixture
def ssh_host(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Host and options of a server on the loopback."""
    if SSHD is None:
        pytest.skip("there is no sshd (apt-get install openssh-server)")
    folder = tmp_path / "sshd"
    folder.mkdir()
    with ssh_server(folder) as host:
        yield host
