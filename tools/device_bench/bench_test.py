"""The whole command: on this machine, by ssh, by a stand-in for adb, and with the emulated ARM64 machine as the device."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from converter.plan.serialization import plan_to_json
from converter.planning.replay import read_plan
from runtime_tests.emulation.command import command_line, guest_variables, lay_out_root
from runtime_tests.emulation.environment import environment
from runtime_tests.emulation.setup import missing_steps
from tools.device_bench.__main__ import main
from tools.device_bench.bundle import START
from tools.device_bench.state import SCRIPT
from tools.device_bench.testing.adb import calls_in
from tools.device_bench.testing.converted import Converted
from tools.device_bench.testing.whole import QUICK, benched, check

pytestmark = pytest.mark.slow


def test_this_machine(converted: Converted, capsys: pytest.CaptureFixture[str]) -> None:
    check(benched(converted, "--local", "--python", sys.executable), converted, platform.machine())
    printed = capsys.readouterr().out
    assert "int8.onnx" in printed and "row for docs/devices.md: | " in printed


def test_a_device_by_ssh(converted: Converted, ssh_host: tuple[str, list[str]], tmp_path: Path) -> None:
    host, options = ssh_host
    found = benched(converted, "--ssh", host, f"--ssh-options={shlex.join(options)}", "--python", sys.executable)
    check(found, converted, platform.machine())
    assert found["device"]["reached"] == f"ssh {host}"


def test_adb_is_called_with_exactly_these_commands(converted: Converted, adb_calls: Path, tmp_path: Path) -> None:
    found = benched(converted, "--adb", "R58N1", "--python", sys.executable, "--cores", "0")
    check(found, converted, platform.machine())
    assert found["settings"]["cores"] == [0]
    calls = calls_in(adb_calls)
    folder = calls[-1][-1].removeprefix("rm -rf ")
    state = shlex.join(["sh", "-c", SCRIPT, "state", ""])
    python = shlex.join([sys.executable, "-c", START, folder])
    runner, child = "tools.device_bench.runner", "runtime_tests.child"
    sent = [["push", "BUNDLE", f"{folder}/bundle.tar"], ["shell", f"tar -x -f {folder}/bundle.tar -C {folder}"]]
    sent += [["shell", f"rm -f {folder}/bundle.tar"]]
    assert [[shown(word) for word in call] for call in calls] == [
        ["-s", "R58N1", *words]
        for words in (
            ["shell", """sh -c 'mktemp -d "/data/local/tmp/bridgequant.XXXXXX"'"""],
            ["shell", state],
            *sent,
            ["shell", f"{python} {runner}"],
            *sent,
            ["shell", f"taskset 1 {python} {child} {folder}/process.json"],
            ["shell", f"taskset 1 {python} {child} {folder}/child0.json"],
            ["pull", f"{folder}/outputs0.npz", "OUTPUTS"],
            ["shell", f"taskset 1 {python} {child} {folder}/child1.json"],
            ["pull", f"{folder}/outputs1.npz", "OUTPUTS"],
            ["shell", state],
            ["shell", f"taskset 1 {python} {runner} {folder}/turns.json"],
            ["shell", state],
            ["shell", f"rm -rf {folder}"],
        )
    ]
    assert list((tmp_path / "device").iterdir()) == []


def shown(word: str) -> str:
    """Words as they are, but for files of this machine, whose folder differs from run to run."""
    here = word.startswith(tempfile.gettempdir()) and Path(word).parent.name.startswith("device-")
    return {"bundle.tar": "BUNDLE", "outputs": "OUTPUTS"}[Path(word).name] if here else word


@pytest.mark.skipif(bool(missing_steps(environment())), reason="the ARM64 emulation is not set up (python -m tools.arm64.setup)")
def test_the_emulated_arm64_machine_as_a_device_by_ssh(converted: Converted, ssh_host: tuple[str, list[str]], tmp_path: Path) -> None:
    """Its Python is a program of the device, which starts the emulator."""
    env = environment()
    root = lay_out_root(env, "cortex-a76", tmp_path / "root")
    command = command_line(env, "cortex-a76", root, Path(os.devnull), [])
    variables = [f"{name}={value}" for name, value in guest_variables(env).items()]
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nexec env -i PATH="$PATH" {shlex.join([*variables, *command])} "$@"\n')
    python.chmod(0o755)
    host, options = ssh_host
    found = benched(converted, "--ssh", host, f"--ssh-options={shlex.join(options)}", "--python", str(python), "--cores", "0")
    check(found, converted, "aarch64")
    assert found["device"]["onnxruntime"] == env.runtime


def test_a_device_without_onnx_runtime_says_so_and_is_left_clean(
    converted: Converted, adb_calls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = shlex.join([sys.executable, "-S", "-E"])  # without installed packages
    assert main([str(converted.floats), str(converted.int8), "--adb", "R58N1", "--python", python]) == 1
    assert "no Python that can import NumPy and ONNX Runtime: No module named 'numpy'" in capsys.readouterr().err
    assert list((tmp_path / "device").iterdir()) == []


def test_a_model_that_does_not_run_there_is_named_and_all_is_removed(
    converted: Converted, adb_calls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The device's tar writes only half of the models, as on a full disk, and does not say so."""
    tar = tmp_path / "bin" / "tar"
    halve = 'for m in "$5"/model*/int8.onnx; do [ -e "$m" ] && head -c 900 "$m" > "$m.half" && mv "$m.half" "$m"; done; true'
    tar.write_text(f'#!/bin/sh\n{shutil.which("tar")} "$@"\n{halve}\n')
    tar.chmod(0o755)
    assert main([str(converted.floats), str(converted.int8), "--adb", "--python", sys.executable, *QUICK]) == 3
    assert "does not run in ONNX Runtime" in (told := capsys.readouterr().err) and str(converted.int8) in told
    assert list((tmp_path / "device").iterdir()) == []


def test_a_plan_that_the_device_does_not_compute_ends_with_5(converted: Converted, capsys: pytest.CaptureFixture[str]) -> None:
    plan = read_plan(converted.plan)
    coarse = {n: replace(t, params=t.params.rescaled(100.0)) if t.kind == "measured" and t.params else t for n, t in plan.tensors.items()}
    converted.plan.write_text(plan_to_json(plan.with_ops(coarse, plan.ops)))
    words = [str(converted.floats), str(converted.int8), "--local", "--python", sys.executable, "--plan-in", str(converted.plan), *QUICK]
    assert main(words) == 5
    assert "does not compute what the plan says" in capsys.readouterr().err


def test_a_bound_that_is_missed_ends_with_6_and_the_results_are_written(converted: Converted, tmp_path: Path) -> None:
    words = [str(converted.floats), str(converted.int8), "--local", "--python", sys.executable, "--at-least", "1000", *QUICK]
    assert main([*words, "--json", str(tmp_path / "out.json")]) == 6
    assert len(json.loads((tmp_path / "out.json").read_text())["models"]) == 2
