from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ConverterError, UsageError
from runtime_tests.emulation.emulator import CORES, Job, check_core, command_line, emulate, read_marks
from runtime_tests.emulation.environment import FOLDER_VARIABLE, Environment, environment
from runtime_tests.emulation.setup import guest_variables


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


def test_the_command_line() -> None:
    env = Environment(Path("/e"))
    assert command_line(env, "max,sme=off", Path("/t/marks"), ["/g.py", "a", "b"]) == [
        *("qemu-aarch64", "-L", "/e/root", "-cpu", "max,sme=off", "-plugin", "/e/plugin/count.so,out=/t/marks"),
        *("/e/root/usr/bin/python3.11", "-S", "-B", "/g.py", "a", "b"),
    ]


def test_the_guest_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "8")
    monkeypatch.setenv("SOMETHING", "else")
    variables = guest_variables(Environment(Path("/e")))
    assert variables["OPENBLAS_NUM_THREADS"] == "1"
    assert "SOMETHING" not in variables


def test_known_cores_pass_and_others_are_explained() -> None:
    assert [check_core(core) for core in CORES] == list(CORES)
    with pytest.raises(UsageError) as caught:
        check_core("cortex-m4")
    text = str(caught.value)
    assert "core 'cortex-m4' is not known" in text
    assert "cortex-a53" in text
    assert len(text.splitlines()) == 3


def test_without_a_set_up_the_command_for_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        emulate([Job(Path("m.onnx"))], "cortex-a53", Environment(tmp_path / "nothing"))
    lines = str(caught.value).splitlines()
    assert lines[0] == "error: the ARM64 emulation is not set up"
    assert lines[2] == f"  do: run python -m tools.arm64.setup --root {tmp_path / 'nothing'}"


def test_the_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment().folder == tmp_path / ".cache" / "bridgequant" / "arm64"
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "other"))
    assert environment().folder == tmp_path / "other"
    assert environment(tmp_path / "third").folder == tmp_path / "third"
