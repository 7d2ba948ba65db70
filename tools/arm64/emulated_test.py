"""The emulated machine itself. Skipped unless ``python -m tools.arm64.setup`` was run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runtime_tests.emulation import guest
from runtime_tests.emulation.compare import compare
from runtime_tests.emulation.count import count
from runtime_tests.emulation.emulator import CORES, command_line, read_marks
from runtime_tests.emulation.environment import environment
from runtime_tests.emulation.setup import ONNXRUNTIME, guest_variables, missing_steps
from tools.arm64.per_op import count_per_op
from tools.arm64.split import empty_model

ENV = environment()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_steps(ENV)), reason="the ARM64 emulation is not set up (python -m tools.arm64.setup)"),
]

LOOP = """
import ctypes, mmap, struct, sys
sys.path.insert(0, {folder!r})
import guest
code = struct.pack("<3I", 0xF1000400, 0x54FFFFE1, 0xD65F03C0)  # again: subs x0, x0, #1; b.ne again; ret
memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(code)
loop = ctypes.CFUNCTYPE(None, ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
mark = guest.marker()
loop(10)
for region, turns in enumerate((10, 20_010, 1_000_010)):
    mark(region, guest.BEGIN)
    loop(turns)
    mark(region, guest.END)
"""


def test_a_loop_takes_the_instructions_it_has(tmp_path: Path) -> None:
    """Two instructions a turn, in machine code written by hand; the call around it is the same each time."""
    (tmp_path / "loop.py").write_text(LOOP.format(folder=str(Path(guest.__file__).parent)))
    command = command_line(ENV, "cortex-a53", tmp_path / "marks.txt", [str(tmp_path / "loop.py")])
    subprocess.run(command, env=guest_variables(ENV), check=True)
    short, longer, longest = read_marks((tmp_path / "marks.txt").read_text()).values()
    assert longer - short == pytest.approx(2 * 20_000, abs=300)
    assert longest - short == pytest.approx(2 * 1_000_000, abs=300)


def test_counts_are_the_same_from_process_to_process(model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(empty_model().SerializeToString())
    nothing, first = count([empty, model], "cortex-a76")
    _, again = count([empty, model], "cortex-a76")
    assert again.median == pytest.approx(first.median, rel=1e-3)
    assert nothing.median < 50_000 < first.median
    assert "asimddp" in first.machine.capabilities
    assert first.machine.onnxruntime == ONNXRUNTIME


def test_nodes_add_up_to_the_whole(model: Path) -> None:
    found = count_per_op(model, "cortex-a76")
    assert [node.error for node in found.nodes] == [None] * len(found.nodes)
    # between nodes the runtime takes some hundred instructions, which only in so small a model are many
    assert abs(found.remainder) < 1500 * len(found.nodes)


def test_an_old_core_and_this_machine_predict_the_same(model: Path) -> None:
    (found,) = compare(model, ["cortex-a53"], samples=2)
    assert (found.predictions, found.equal) == (2, 2)
    assert found.largest < 1e-4 * found.scale


def test_the_emulator_knows_every_core() -> None:
    answer = subprocess.run(["qemu-aarch64", "-cpu", "help"], capture_output=True, text=True).stdout  # it ends with code 1
    assert {core.partition(",")[0] for core in CORES} <= set(answer.split())
