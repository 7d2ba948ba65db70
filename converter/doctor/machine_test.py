"""What systems say of their processors."""

from __future__ import annotations

import pytest

from converter.doctor.machine import read_cpuinfo, read_sysctl, this_machine

X86 = """processor\t: 0
model name\t: Some Processor
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni

processor\t: 1
model name\t: Some Processor
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni
"""

ARM = """processor\t: 0
Features\t: fp asimd asimddp
CPU part\t: 0xd05

processor\t: 1
Features\t: fp asimd asimddp
CPU part\t: {second}
"""


def test_linux_on_x86() -> None:
    machine = read_cpuinfo(X86, "x86_64", 2)
    assert (machine.processor, machine.instruction_sets) == ("Some Processor", ("avx2", "avx512f", "avx512_vnni"))


@pytest.mark.parametrize(("second", "little"), [("0xd05", True), ("0xd0b", False)])
def test_linux_on_arm_of_little_cores_or_of_both_kinds(second: str, little: bool) -> None:
    machine = read_cpuinfo(ARM.format(second=second), "aarch64", 2)
    assert machine.instruction_sets == ("dotprod",) and machine.little is little


def test_linux_that_does_not_tell() -> None:
    assert read_cpuinfo("processor\t: 0\n", "riscv64", 1).instruction_sets is None


def test_macos() -> None:
    answers = {"machdep.cpu.brand_string": "Apple M9", "hw.optional.arm.FEAT_DotProd": "1", "hw.optional.arm.FEAT_SME": "0"}
    machine = read_sysctl(lambda name: answers.get(name, ""), "arm64", 8)
    assert (machine.processor, machine.instruction_sets) == ("Apple M9", ("dotprod",))


def test_this_machine_has_an_architecture_and_cores() -> None:
    machine = this_machine()
    assert machine.architecture and machine.cores >= 1
