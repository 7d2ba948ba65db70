from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ConverterError, UsageError
from runtime_tests.emulation.emulator import Job, emulate, read_marks
from runtime_tests.emulation.environment import OLDEST, Environment


def test_a_region_is_what_lies_between_its_marks() -> None:
    assert read_marks("0 0 500 1\n0 1 1750 1\n1 0 2000 1\n1 1 2003 1\n") == {0: 1250, 1: 3}


def test_regions_may_lie_within_others() -> None:
    assert read_marks("7 0 10 1\n8 0 20 1\n8 1 50 1\n7 1 100 1\n") == {8: 30, 7: 90}


def test_a_region_that_did_not_end_is_left_out() -> None:
    assert read_marks("0 0 10 1\n1 0 20 1\n1 1 25 1\n") == {1: 5}


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12))))
def test_regions_one_after_the_other_add_up(steps: list[tuple[int, int]]) -> None:
    lines, now = [], 0
    for region, (before, within) in enumerate(steps):
        lines += [f"{region} 0 {now + before} 1", f"{region} 1 {now + before + within} 1"]
        now += before + within
    assert read_marks("\n".join(lines)) == {region: within for region, (_, within) in enumerate(steps)}


def test_counts_with_a_second_thread_are_refused() -> None:
    with pytest.raises(ConverterError, match="2 threads were alive in region 3"):
        read_marks("3 0 10 2\n3 1 20 2\n")


def test_without_a_set_up_the_command_for_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        emulate([Job(Path("m.onnx"))], "cortex-a53", Environment(tmp_path / "nothing"))
    lines = str(caught.value).splitlines()
    assert lines[0] == "error: the ARM64 emulation is not set up"
    assert lines[2] == f"  do: run python -m tools.arm64.setup --root {tmp_path / 'nothing'}"


def test_the_command_names_the_runtime_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        emulate([Job(Path("m.onnx"))], "cortex-a53", Environment(tmp_path, OLDEST))
    assert caught.value.hint == f"run python -m tools.arm64.setup --runtime {OLDEST} --root {tmp_path}"
