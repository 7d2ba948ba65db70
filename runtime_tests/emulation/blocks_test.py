from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime_tests.emulation.blocks import instructions_of, read_blocks

NOP, MUL, RET = (bytes.fromhex(code) for code in ("1f2003d5", "217c011b", "c0035fd6"))
CODES = [NOP, MUL + RET, NOP + MUL + RET]


def test_instructions_are_four_bytes_each() -> None:
    assert instructions_of({NOP: 5, MUL + RET: 7}) == 5 + 2 * 7


def test_a_region_has_what_ran_between_its_marks() -> None:
    lines = ["mark 0 0", "block 8 55f0 217c011bc0035fd6", "runs 8 3", "mark 0 1", "mark 1 0", "runs 8 40", "mark 1 1"]
    assert read_blocks(lines) == {0: {MUL + RET: 3}, 1: {MUL + RET: 40}}


def test_the_same_code_elsewhere_is_the_same_block() -> None:
    """The emulator also gives a block another number when it translates it again."""
    lines = ["mark 0 0", "block 1 1000 1f2003d5", "runs 1 3", "block 2 2000 1f2003d5", "runs 2 4", "mark 0 1"]
    assert read_blocks(lines) == {0: {NOP: 7}}


def test_regions_may_lie_within_others() -> None:
    lines = ["mark 7 0", "block 1 0 1f2003d5", "runs 1 1", "mark 8 0", "runs 1 20", "mark 8 1", "runs 1 300", "mark 7 1"]
    assert read_blocks(lines) == {7: {NOP: 321}, 8: {NOP: 20}}


def test_a_region_that_did_not_end_is_left_out() -> None:
    assert read_blocks(["mark 0 0", "block 1 0 1f2003d5", "runs 1 9", "mark 1 0", "runs 1 2", "mark 1 1"]) == {1: {NOP: 2}}


@given(st.lists(st.dictionaries(st.integers(0, 2), st.integers(1, 10**12)), max_size=5))
def test_regions_one_after_the_other_are_read_as_they_were(regions: list[dict[int, int]]) -> None:
    lines = ["mark 99 0"] + [f"block {place} 0 {code.hex()}" for place, code in enumerate(CODES)]
    for region, executions in enumerate(regions):
        lines += [f"mark {region} 0", *(f"runs {place} {times}" for place, times in executions.items()), f"mark {region} 1"]
    expected = {region: {CODES[place]: times for place, times in found.items()} for region, found in enumerate(regions)}
    assert read_blocks(lines) == expected
