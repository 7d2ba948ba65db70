"""The command in processes of its own: start, signals, terminals, pipes, and the same bytes everywhere."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from converter.testing.models import SaveHybrid, hybrid_model

ROOT = Path(__file__).parents[2]
QUICK = ["--samples", "4", "--method", "minmax"]


def command(*words: object) -> list[str]:
    return [sys.executable, str(ROOT / "convert.py"), *map(str, words)]


def finished(*words: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(command(*words), capture_output=True, text=True, cwd=folder, env=env, timeout=120, check=False)


# Start


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        ([], 2),
        (["a", "b", "--nonsense"], 2),
        (["absent.onnx", "out.onnx"], 3),
        (["pyproject.toml", "out.onnx", "--bits", "W3A8"], 2),
        (["pyproject.toml", "out.onnx", "--target", "gpu"], 2),
        (["pyproject.toml", "out.onnx", "--method", "magic"], 2),
        (["pyproject.toml", "pyproject.toml"], 2),
    ],
)
def test_answers_that_need_no_heavy_library(words: list[str], code: int) -> None:
    program = f"""
import sys
from converter.cli.main import main
code = main({words!r})
heavy = {{"torch", "onnxruntime", "onnx", "onnx_ir"}} & set(sys.modules)
sys.exit(f"{{code}} {{heavy}}" if heavy or code != {code} else 0)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["absent.onnx", "out.onnx"], 3), (["."], 2)])
def test_exit_codes_reach_the_shell(tmp_path: Path, words: list[str], code: int) -> None:
    assert finished(*words, folder=tmp_path).returncode == code
    entry = [sys.executable, "-c", "import sys; from converter.cli.main import main; sys.exit(main())", *words]
    installed = subprocess.run(entry, capture_output=True, cwd=ROOT, timeout=60, check=False)
    assert installed.returncode == code, "as the script that an installation makes calls it"


def test_the_installed_command_is_this_one() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert 'bridgequant = "converter.cli.main:main"' in project


# The same bytes


@pytest.mark.slow
def test_two_processes_write_the_same_files(tmp_path: Path, save_hybrid: SaveHybrid) -> None:
    """With other hash seeds, other folders and another number of threads; stdout holds JSON alone."""
    outcomes: list[tuple[bytes, bytes, dict[str, Any]]] = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        words = (save_hybrid(opset=13, dynamic_batch=True), "out.onnx", "--samples", "6", "--plan-out", "plan.json", "--json", "-")
        result = finished(*words, "--threads", seed, folder=folder, PYTHONHASHSEED=seed)
        assert result.returncode == 0, result.stderr
        told = r"(\[ *[\d.]+ s\] \w+ took [\d.]+ s\n)*note: .*--target x86, for a browser --target web\nnote: .*--calib\n"
        assert re.fullmatch(told, result.stderr), result.stderr
        report = json.loads(result.stdout)
        assert report.pop("seconds")["plan"] > 0
        report.pop("latency_ratio")  # which is there on a machine of the target
        assert report.pop("peak_memory") > 0
        outcomes.append(((folder / "out.onnx").read_bytes(), (folder / "plan.json").read_bytes(), report))
    assert outcomes[0] == outcomes[1]


# Streams


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(tmp_path: Path, save_hybrid: SaveHybrid) -> None:
    line = f"set -o pipefail; {' '.join(command(save_hybrid(), 'out.onnx', *QUICK))} | head -c 20"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert result.returncode == 0 and len(result.stdout) == 20
    assert (tmp_path / "out.onnx").exists() and "Traceback" not in result.stderr and "Exception" not in result.stderr


# Terminals


def on_terminal(words: Sequence[str], columns: int) -> tuple[int, str]:
    """Exit code and everything that is printed, in a pseudo-terminal."""
    import fcntl
    import termios

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color")
        os.environ.pop("COLUMNS", None)
        os.execv(words[0], list(words))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    printed = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        printed += part
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), printed.decode()


@pytest.mark.slow
def test_bars_and_tables_on_a_narrow_terminal(tmp_path: Path, save_hybrid: SaveHybrid) -> None:
    output = tmp_path / "out.onnx"
    code, printed = on_terminal(command(save_hybrid(), output, "--samples", "40", "--method", "minmax"), 80)
    assert code == 0, printed
    assert "━" in printed and "observe" in printed
    assert printed.rindex("\x1b[?25h") > printed.rindex("\x1b[?25l"), "the cursor is shown again"
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", printed)
    table = plain[plain.rindex(" -> out.onnx") :]
    assert "dB SQNR" in table and "━" not in table
    assert all(len(line) <= 80 for line in table.splitlines())


# Signals


def wait_for(process: subprocess.Popen[str], library: str) -> None:
    """Until the process has loaded a library."""
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        if library in Path(f"/proc/{process.pid}/maps").read_text(errors="replace"):
            return
        time.sleep(0.02)
    pytest.fail(f"{library} was never loaded")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
@pytest.mark.parametrize(
    ("library", "delay", "number", "times"),
    [
        ("_multiarray_umath", 0.0, signal.SIGINT, 1),
        ("onnxruntime_pybind11_state", 0.0, signal.SIGTERM, 1),
        ("libtorch_cpu", 0.2, signal.SIGINT, 2),
        ("onnxsim", 0.7, signal.SIGTERM, 2),
        ("onnxsim", 2.0, signal.SIGINT, 1),
    ],
)
def test_interruptions(tmp_path: Path, library: str, delay: float, number: signal.Signals, times: int) -> None:
    """At any moment: exit code 130, one line, the old file as it was, and nothing left behind."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "in.onnx").write_bytes(hybrid_model(dynamic_batch=True, dynamic_size=True).SerializeToString())
    (tmp_path / "out.onnx").write_bytes(b"old")
    words = command("in.onnx", "out.onnx", "--samples", "3000", "--json", "report.json")
    env = {**os.environ, "TMPDIR": str(tmp_path / "scratch")}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=env) as process:
        wait_for(process, library)
        time.sleep(delay)
        for _ in range(times):
            process.send_signal(number)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()  # else the end of the block waits for a process that does not heed signals
    assert process.returncode == 130, err
    lines = [line for line in err.splitlines() if not line.startswith("[")]
    assert lines == ["interrupted; out.onnx was not written"] and out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx", "scratch"]
    assert list((tmp_path / "scratch").iterdir()) == []
    assert (tmp_path / "out.onnx").read_bytes() == b"old"
