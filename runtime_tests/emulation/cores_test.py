from __future__ import annotations

import pytest

from converter.errors import UsageError
from runtime_tests.emulation.cores import CORES, check_core, system_files


def test_known_cores_pass_and_others_are_explained() -> None:
    assert [check_core(core) for core in CORES] == list(CORES)
    with pytest.raises(UsageError) as caught:
        check_core("cortex-m4")
    text = str(caught.value)
    assert "core 'cortex-m4' is not known" in text
    assert "cortex-a53" in text
    assert len(text.splitlines()) == 3


@pytest.mark.parametrize(("core", "part"), [("cortex-a53", "0xd03"), ("cortex-a55", "0xd05"), ("cortex-a76", "0xd0b")])
def test_linux_says_that_there_is_one_processor_and_which(core: str, part: str) -> None:
    files = system_files(core)
    lines = [line.partition(":") for line in files["/proc/cpuinfo"].splitlines()]
    rows = {name.strip(): text.strip() for name, _, text in lines}
    assert (rows["processor"], rows["CPU implementer"], rows["CPU part"]) == ("0", "0x41", part)
    assert ("asimddp" in rows["Features"].split()) == (core != "cortex-a53")
    assert files["/sys/devices/system/cpu/possible"] == files["/sys/devices/system/cpu/online"] == "0\n"


def test_a_little_core_differs_from_a_big_one_by_its_name_alone() -> None:
    little, big = CORES["cortex-a55"], CORES["cortex-a76"]
    assert (little.emulated, little.features) == (big.emulated, big.features)
    assert little.part != big.part


def test_files_that_would_tell_of_this_machine_are_empty() -> None:
    files = system_files("max-sve128")
    assert {text for path, text in files.items() if "/cpu0/" in path} == {""}
