"""Cycles of what the emulated machine executes. Skipped unless ``python -m tools.arm64.setup --cycles`` was run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runtime_tests.emulation import guest
from runtime_tests.emulation.blocks import instructions_of, read_blocks
from runtime_tests.emulation.command import command_line, guest_variables, lay_out_root
from runtime_tests.emulation.count import count
from runtime_tests.emulation.emulator import read_marks
from runtime_tests.emulation.environment import environment
from runtime_tests.emulation.setup import missing_steps
from tools.arm64.block_cycles import SHARE, block_costs, cycles_of
from tools.arm64.llvm import is_installed
from tools.arm64.model_cycles import cycles_per_op

ENV = environment()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_steps(ENV)), reason="the ARM64 emulation is not set up (python -m tools.arm64.setup)"),
]
needs_llvm = pytest.mark.skipif(not is_installed(), reason="LLVM is not installed (python -m tools.arm64.setup --cycles)")

CHAIN = """
import ctypes, mmap, struct, sys
sys.path.insert(0, {folder!r})
import guest
# again: 100 of mul w1, w1, w1; subs x0, x0, #1; b.ne again; ret
code = struct.pack("<103I", *[0x1B017C21] * 100, 0xF1000400, 0x54000001 | (-101 & 0x7FFFF) << 5, 0xD65F03C0)
memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(code)
loop = ctypes.CFUNCTYPE(None, ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
mark = guest.marker()
loop(10)
for region, turns in enumerate((10_000, 30_000)):
    mark(region, guest.BEGIN)
    loop(turns)
    mark(region, guest.END)
"""


@needs_llvm
@pytest.mark.parametrize(("core", "latency"), [("cortex-a76", 2), ("cortex-a55", 3)])
def test_a_loop_of_multiplications_takes_their_latencies(core: str, latency: int, tmp_path: Path) -> None:
    """Each waits for the one before it, and beside a hundred of them the end of the loop takes little; the call around it is the same."""
    (tmp_path / "chain.py").write_text(CHAIN.format(folder=str(Path(guest.__file__).parent)))
    marks, blocks = tmp_path / "marks.txt", tmp_path / "blocks.txt"
    command = command_line(ENV, core, lay_out_root(ENV, core, tmp_path / "root"), marks, [str(tmp_path / "chain.py")], blocks)
    subprocess.run(command, env=guest_variables(ENV), check=True)
    short, long = read_blocks(blocks.read_text().splitlines()).values()
    costs = block_costs([short, long], core, tmp_path / "costs")
    taken = cycles_of(long, costs).cycles - cycles_of(short, costs).cycles
    assert taken == pytest.approx(20_000 * 100 * latency, rel=0.01)
    assert [instructions_of(short), instructions_of(long)] == list(read_marks(marks.read_text()).values())


def test_blocks_have_all_instructions_and_counting_them_changes_nothing(model: Path) -> None:
    """Two runs, two regions: whatever one of the plugins counted, the other did."""
    (found,) = count([model], "cortex-a76", runs=2, blocks=True)
    assert tuple(instructions_of(blocks) for blocks in found.blocks) == found.instructions
    (plain,) = count([model], "cortex-a76", runs=2)
    assert found.instructions == pytest.approx(plain.instructions, rel=1e-3)
    assert plain.blocks == ()


@needs_llvm
def test_the_nodes_of_a_model_add_up(model: Path, tmp_path: Path) -> None:
    """A big core has more than one instruction in a cycle on average, a little one that waits for its loads less than one."""
    big, little = (cycles_per_op(model, core, ENV) for core in ("cortex-a76", "cortex-a55"))
    for found in (big, little):
        assert [node.error for node in found.nodes] == [None] * len(found.nodes)
        assert found.whole.judged >= SHARE * found.whole.instructions
        assert found.whole.instructions == found.count.instructions[0]
        # between nodes there is little but what the runtime does around each of them
        assert 0 < found.remainder.cycles < 0.3 * found.whole.cycles
    assert (big.amount.per_cycle or 0) > 1 > (little.amount.per_cycle or 1)
