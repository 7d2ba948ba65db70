from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from converter.errors import ConverterError, UsageError
from tools.arm64 import block_cycles
from tools.arm64.block_cycles import Cycles, block_costs, cycles_of, hottest

LOOP, CALL, RARE = b"\x01" * 40, b"\x02" * 8, b"\x03" * 4
"""Ten, two and one instructions."""


def test_cycles_are_executions_times_costs() -> None:
    """10 x 600 + 2 x 2000 instructions; 600 x 5 + 2000 x 0.5 cycles."""
    assert cycles_of({LOOP: 600, CALL: 2000}, {LOOP: 5.0, CALL: 0.5}) == Cycles(10_000, 4000.0, 10_000)


def test_the_blocks_that_are_not_judged_take_the_mean() -> None:
    """9,900 of 10,000 instructions are in two blocks and take 4,000 cycles: each of the other 100 takes 4000 / 9900."""
    found = cycles_of({LOOP: 600, CALL: 1950, RARE: 100}, {LOOP: 5.0, CALL: 1000 / 1950})
    assert (found.instructions, found.judged) == (10_000, 9_900)
    assert found.cycles == pytest.approx(4000 * 10_000 / 9_900)


def test_what_else_has_a_cost_changes_nothing() -> None:
    """Or the same command would give another result after another model."""
    blocks, costs = {LOOP: 600, CALL: 1950, RARE: 100}, {LOOP: 5.0, CALL: 0.5}
    assert cycles_of(blocks, {**costs, RARE: 1000.0}) == cycles_of(blocks, costs)


def test_the_hottest_blocks_have_most_instructions_and_no_more_than_needed() -> None:
    assert hottest({RARE: 1, CALL: 200, LOOP: 60}, {}) == [LOOP, CALL]
    assert hottest({RARE: 100, CALL: 50, LOOP: 5}, {}) == [CALL, RARE, LOOP]
    assert hottest({LOOP: 990, CALL: 50}, {}) == [LOOP]
    assert hottest({}, {}) == []


def test_others_take_the_place_of_a_block_that_was_not_understood() -> None:
    blocks = {LOOP: 990, CALL: 40, RARE: 20}
    assert hottest(blocks, {LOOP: 1.0}) == [LOOP]
    assert hottest(blocks, {LOOP: None}) == [CALL, RARE]
    assert cycles_of(blocks, {LOOP: None, CALL: 3.0, RARE: 1.0}) == Cycles(10_000, pytest.approx(140 * 10_000 / 100), 100)  # type: ignore[arg-type]


def test_nothing_takes_nothing() -> None:
    assert cycles_of({}, {}) == Cycles(0, 0.0, 0)


def test_a_region_of_which_nothing_was_understood_is_refused() -> None:
    with pytest.raises(ConverterError, match="none of the blocks that were executed was understood"):
        cycles_of({LOOP: 1}, {LOOP: None})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[bytes]]:
    """LLVM's stand-in understands all but one block, and takes a cycle for each byte; blocks that it was asked for."""
    calls: list[list[bytes]] = []

    def judged(codes: Iterable[bytes], core: str) -> dict[bytes, float]:
        calls.append(list(codes))
        return {code: float(len(code)) for code in calls[-1] if code != LOOP}

    monkeypatch.setattr(block_cycles, "judged", judged)
    monkeypatch.setattr(block_cycles, "llvm_version", lambda: "19.0")
    return calls


def test_a_block_is_judged_once_for_a_core_and_version(asked: list[list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = block_costs([{CALL: 1}], "cortex-a76", tmp_path / "costs")
    assert block_costs([{CALL: 7}, {RARE: 1}], "cortex-a76", tmp_path / "costs") == {**first, RARE: 4.0}
    assert asked == [[CALL], [RARE]]
    block_costs([{CALL: 1}], "cortex-a55", tmp_path / "costs")
    monkeypatch.setattr(block_cycles, "llvm_version", lambda: "19.1")
    block_costs([{CALL: 1}], "cortex-a76", tmp_path / "costs")
    assert asked[2:] == [[CALL], [CALL]]


def test_a_block_that_is_not_understood_is_not_asked_for_again(asked: list[list[bytes]], tmp_path: Path) -> None:
    blocks = {LOOP: 990, CALL: 50}
    assert block_costs([blocks], "cortex-a76", tmp_path) == {LOOP: None, CALL: 8.0}
    assert block_costs([blocks], "cortex-a76", tmp_path) == {LOOP: None, CALL: 8.0}
    assert asked == [[LOOP], [CALL]]


def test_a_folder_that_cannot_be_written_is_named(asked: list[list[bytes]], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="the folder cannot be written"):
        block_costs([{CALL: 1}], "cortex-a76", tmp_path / "file" / "below")
