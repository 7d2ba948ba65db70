"""Bounds are what their words add up to, and the ways of computing that they count give the right codes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tools.upstream import bounds

Bytes = npt.NDArray[np.uint8]


def test_a_deep_product_takes_86_instructions_for_1024_sums_and_every_code_or_float_some_more() -> None:
    assert bounds.product(1024, 0) == 86
    assert bounds.product(0, 16) == 26
    assert bounds.product(0, 16, in_float=True) == 14
    assert bounds.product(64, 1) / 64 == pytest.approx(0.1094, abs=1e-4)


def test_a_shallow_product_is_dominated_by_making_codes() -> None:
    assert bounds.product(16, 1) / 16 > 2 * bounds.product(1024, 0) / 1024


@pytest.mark.parametrize(("width", "rows", "instructions"), [(9, 3, 9), (16, 3, 9), (17, 3, 15), (24, 1, 5)])
def test_unfolding_copies_rows_of_a_kernel_by_16_bytes(width: int, rows: int, instructions: int) -> None:
    assert bounds.unfolded(1, rows, width) == instructions
    assert bounds.unfolded(100, rows, width) == 100 * instructions


def test_what_16_numbers_take() -> None:
    found = (bounds.TABLE, bounds.QUANTIZED, bounds.SOFTMAX, bounds.NORMALIZED)
    assert [16 * each for each in found] == [11, 21, 65, 30]


def looked_up(table: Bytes, codes: Bytes) -> Bytes:
    """TBL of the first 64 codes, then three times a subtraction and a TBX, as the Arm Architecture Reference Manual defines them."""
    index = codes.copy()
    result = np.where(index < 64, table[:64][index % 64], 0).astype(np.uint8)  # TBL: 0 where the index is outside
    for part in (1, 2, 3):
        index = (index.astype(np.int16) - 64).astype(np.uint8)  # wraps
        result = np.where(index < 64, table[64 * part : 64 * part + 64][index % 64], result)  # TBX: as it was where the index is outside
    return result


def test_a_table_of_256_codes_is_looked_up_in_four_quarters() -> None:
    table = np.random.default_rng(0).integers(0, 256, 256).astype(np.uint8)
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(looked_up(table, codes), table)


def test_narrowing_with_saturation_quantizes_as_the_operator_is_defined() -> None:
    numbers = np.random.default_rng(0).standard_normal(10_000).astype(np.float32) * 4e4
    for zero_point in (-128, 0, 127):
        words = np.clip(np.rint(numbers), -(2.0**31), 2.0**31 - 1)  # FCVTNS
        halves = np.clip(words, -(2**15), 2**15 - 1)  # SQXTN
        shifted = np.clip(halves + zero_point, -(2**15), 2**15 - 1)  # SQADD
        assert np.array_equal(np.clip(shifted, -128, 127), np.clip(np.rint(numbers) + zero_point, -128, 127))
