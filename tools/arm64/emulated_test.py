"""The emulated machine itself. Skipped unless ``python -m tools.arm64.setup`` was run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from converter.testing.models import hybrid_model
from converter.testing.sketch import Sketch, emitted, plan_for
from runtime_tests.emulation import guest
from runtime_tests.emulation.command import command_line, guest_variables, lay_out_root
from runtime_tests.emulation.compare import compare
from runtime_tests.emulation.cores import CORES, system_files
from runtime_tests.emulation.count import count
from runtime_tests.emulation.emulator import read_marks
from runtime_tests.emulation.environment import RUNTIMES, Environment, environment
from runtime_tests.emulation.setup import missing_steps
from tools.arm64.per_op import count_per_op
from tools.arm64.split import empty_model

ENV = environment()
MACHINES = [environment(runtime=runtime) for runtime in RUNTIMES]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(any(map(missing_steps, MACHINES)), reason="the ARM64 emulation is not set up (python -m tools.arm64.setup)"),
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
    root = lay_out_root(ENV, "cortex-a53", tmp_path / "root")
    command = command_line(ENV, "cortex-a53", root, tmp_path / "marks.txt", [str(tmp_path / "loop.py")])
    subprocess.run(command, env=guest_variables(ENV), check=True)
    short, longer, longest = read_marks((tmp_path / "marks.txt").read_text()).values()
    assert longer - short == pytest.approx(2 * 20_000, abs=300)
    assert longest - short == pytest.approx(2 * 1_000_000, abs=300)


@pytest.mark.parametrize("env", MACHINES[-1:], ids=list(RUNTIMES)[-1:])
def test_counts_are_the_same_from_process_to_process(env: Environment, model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(empty_model().SerializeToString())
    nothing, first = count([empty, model], "cortex-a76", env=env)
    _, again = count([empty, model], "cortex-a76", env=env)
    assert again.median == pytest.approx(first.median, rel=1e-3)
    assert nothing.median < 50_000 < first.median
    assert "asimddp" in first.machine.capabilities
    assert first.machine.onnxruntime == env.runtime


def test_nodes_add_up_to_the_whole(tmp_path: Path) -> None:
    """Between nodes the runtime takes some 1,500 instructions, more or less by where its memory lies: hardly any where nodes have work."""
    path, inputs = tmp_path / "open.onnx", tmp_path / "image.npz"
    path.write_bytes(hybrid_model(dynamic_size=True).SerializeToString())
    np.savez(inputs, image=np.random.default_rng(0).normal(size=(1, 3, 96, 96)).astype(np.float32))
    found = count_per_op(path, "cortex-a76", inputs=inputs)
    assert [node.error for node in found.nodes] == [None] * len(found.nodes)
    assert abs(found.remainder) < 0.01 * found.whole.median


def test_an_old_core_and_this_machine_predict_the_same(model: Path) -> None:
    (found,) = compare(model, ["cortex-a53"], samples=2)
    assert (found.predictions, found.equal) == (2, 2)
    assert found.largest < 1e-4 * found.scale


@pytest.mark.parametrize("core", CORES)
def test_a_core_offers_what_its_files_say(core: str, tmp_path: Path) -> None:
    """What the runtime reads there and what it asks the system for must be one core, or it takes instructions that there are not."""
    (tmp_path / "ask.py").write_text("import ctypes; print(*(ctypes.CDLL(None).getauxval(entry) for entry in (16, 26)))")
    root = lay_out_root(ENV, core, tmp_path / "root")
    command = command_line(ENV, core, root, tmp_path / "marks.txt", [str(tmp_path / "ask.py")])
    answer = subprocess.run(command, env=guest_variables(ENV), check=True, capture_output=True, text=True).stdout
    tables = zip(answer.split(), guest.HARDWARE_CAPABILITIES.values(), strict=True)
    offered = {name for word, bits in tables for name, bit in bits.items() if int(word) >> bit & 1}
    (line,) = (line for line in system_files(core)["/proc/cpuinfo"].splitlines() if line.startswith("Features"))
    known = {name for bits in guest.HARDWARE_CAPABILITIES.values() for name in bits}
    assert known.intersection(line.partition(":")[2].split()) == offered


def test_the_runtime_knows_a_little_core_by_its_name(tmp_path: Path) -> None:
    """Its integer convolutions load half as much at a time there. Two cores with the same instructions take other kernels."""
    path = tmp_path / "convolution.onnx"
    s = Sketch(0)
    path.write_bytes(emitted(plan_for(s.model(s.conv(s.input("x", 1, 64, 16, 16), 64, size=1, outputs=64)))).SerializeToString())
    (little,), (big,) = (count([path], core) for core in ("cortex-a55", "cortex-a76"))
    assert little.machine.capabilities == big.machine.capabilities
    assert little.median > 1.01 * big.median
