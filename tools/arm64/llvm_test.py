"""What LLVM makes of blocks. Latencies are those of Arm's optimization guides of the two cores."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from converter.errors import UsageError
from tools.arm64.llvm import check_modelled, disassembled, is_installed, judged, llvm_version

needs_llvm = pytest.mark.skipif(not is_installed(), reason="LLVM is not installed (python -m tools.arm64.setup --cycles)")


def code(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


MUL, NOP, RET = 0x1B017C21, 0xD503201F, 0xD65F03C0  # mul w1, w1, w1; nop; ret
ADD = 0x91000400  # add x0, x0, #1; other registers by their numbers
LDADD = 0xB8E00020  # ldaddal w0, w0, [x1]: a core of ARMv8.1 has it
BL, BLR = 0x94000400, 0xD63F0040  # bl #4096; blr x2
NONE = 0xFFFFFFFF


@needs_llvm
@pytest.mark.slow
@pytest.mark.parametrize(("core", "latency"), [("cortex-a76", 2), ("cortex-a55", 3)])
@pytest.mark.parametrize("length", [1, 8])
def test_multiplications_that_wait_for_each_other_cost_their_latency(core: str, latency: int, length: int) -> None:
    """Filling the core once is shared by all repetitions: it makes a few hundredths of a cycle."""
    chain = code(*[MUL] * length)
    assert judged([chain], core)[chain] == pytest.approx(latency * length, abs=0.05)


@needs_llvm
@pytest.mark.slow
def test_no_more_instructions_than_the_core_decodes_end_in_a_cycle() -> None:
    """The big core decodes four, even of those that do nothing; the little one takes two that do not wait for each other."""
    nothing = code(*[NOP] * 16)
    assert judged([nothing], "cortex-a76")[nothing] == pytest.approx(16 / 4, abs=0.1)
    sums = code(*[ADD | register << 5 | register for register in range(2, 18)])
    assert judged([sums], "cortex-a55")[sums] == pytest.approx(16 / 2, abs=0.1)


@needs_llvm
@pytest.mark.slow
@pytest.mark.parametrize(("core", "latency"), [("cortex-a76", 2), ("cortex-a55", 3)])
@pytest.mark.parametrize("call", [BL, BLR])
def test_a_call_is_one_instruction(call: int, core: str, latency: int) -> None:
    """What is called is executed, and so has blocks of its own. Beside a chain of multiplications the call takes little."""
    block = code(*[MUL] * 20, call)
    assert judged([block], core)[block] == pytest.approx(latency * 20, abs=1.1)


@needs_llvm
@pytest.mark.slow
def test_each_block_has_a_cost_of_its_own_in_any_order() -> None:
    blocks = [code(*[MUL] * length, *[ADD] * (length % 3)) for length in range(1, 600)]  # more than one run of the analyser takes
    together = judged(reversed(blocks), "cortex-a55")
    assert len(together) == len(blocks)
    for place in (0, 1, 350, 598):
        assert judged([blocks[place]], "cortex-a55") == {blocks[place]: together[blocks[place]]}
    assert together[blocks[500]] == pytest.approx(3 * 501, rel=0.01)


@needs_llvm
@pytest.mark.slow
def test_what_is_not_understood_is_left_out() -> None:
    good = code(MUL, RET)
    assert set(judged([good, code(MUL, NONE), code(LDADD, RET)], "cortex-a76")) <= {good, code(LDADD, RET)}
    assert good in judged([code(MUL, NONE), good], "cortex-a76")
    assert judged([code(NONE)], "cortex-a55") == {}
    assert judged([], "cortex-a55") == {}


@needs_llvm
@pytest.mark.slow
def test_instructions_are_disassembled_by_their_bytes() -> None:
    found = disassembled([code(MUL), code(NONE), code(RET), code(MUL)], "neoverse-n1")
    assert {word: text.split() for word, text in found.items()} == {code(MUL): ["mul", "w1,", "w1,", "w1"], code(RET): ["ret"]}


def test_without_llvm_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        llvm_version()
    assert str(caught.value).splitlines() == [
        "error: LLVM 19 is not installed",
        "  at: llvm-mc-19, llvm-mca-19",
        "  do: install it: python -m tools.arm64.setup --cycles, or apt-get install llvm-19",
    ]


def test_a_core_without_a_model_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no model of the cycles of core 'cortex-a53'"):
        check_modelled("cortex-a53")
