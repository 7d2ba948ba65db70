"""How few instructions of ARMv8.2 a kernel could do with: counted by hand, for 16 numbers or a tile at a time.

Every bound is of an inner loop. What a call, the ends of rows and tiles that are not full take comes on top, so that no kernel reaches it;
where the runtime has a kernel that comes near, the models in :mod:`tools.upstream.models` have it beside.
"""

from __future__ import annotations

__all__ = ["NORMALIZED", "QUANTIZED", "SOFTMAX", "TABLE", "product", "unfolded"]

_LANES, _REGISTER = 16, 16
"""Codes in a register, and multiply-accumulates of one SDOT."""

_WORDS = 4
"""Numbers of 32 bits in a register."""

_ROWS, _COLUMNS = 4, 16
"""The tile of sums that both ONNX Runtime's and XNNPACK's kernels for SDOT hold in 16 registers."""

_LOOP = 2
"""Instructions that end a turn of a loop: count down, branch."""


def _sums() -> float:
    """Instructions of a multiply-accumulate, over a turn of 16 deep.

    64 SDOT, 16 loads of weights and 4 of codes, and the end of the loop: 86 for 1024.
    """
    turn = _ROWS * _COLUMNS * _REGISTER
    loads = (_ROWS + _COLUMNS) * _REGISTER // _LANES
    return (turn / _REGISTER + loads + _LOOP) / turn


def _requantized() -> float:
    """Instructions of a sum that becomes a code in the registers where it was made.

    Sixteen sums of a row, four in each register: four conversions to float, four products with scales, four conversions back with rounding,
    four narrowings to 16 bits, two additions of the zero point, two narrowings to 8 bits and a store. For the whole tile, four loads of
    biases, 12 copies of them to further rows and four loads of scales.
    """
    registers = _COLUMNS // _WORDS
    row = 3 * registers + registers + registers // 2 + 2 + 1
    tile = registers + (_ROWS - 1) * registers + registers
    return row / _COLUMNS + tile / (_ROWS * _COLUMNS)


def _written_in_float() -> float:
    """Instructions of a sum that becomes a float in the registers where it was made.

    Sixteen sums of a row: four conversions to float, four products with scales, two stores of pairs. For the whole tile, four loads of
    biases and 12 copies of them.
    """
    registers = _COLUMNS // _WORDS
    return (2 * registers + registers // 2) / _COLUMNS + _ROWS * registers / (_ROWS * _COLUMNS)


def product(sums: float, outputs: float, *, in_float: bool = False) -> float:
    """Instructions of a product of matrices that makes numbers of its sums in the kernel.

    Args:
        sums: multiply-accumulates.
        outputs: elements of the result.
        in_float: they are floats, otherwise codes.
    """
    return sums * _sums() + outputs * (_written_in_float() if in_float else _requantized())


def unfolded(places: float, rows: float, width: float) -> float:
    """Instructions that lay out what a kernel covers, for an image with its channels last.

    Of each row of the kernel, whose numbers lie side by side, as many loads and stores of 16 bytes as cover it, and one addition for the
    address; a store may write too far, as the next one, or the next place, writes over it.

    Args:
        places: of the result.
        rows: of the kernel.
        width: numbers in a row of the kernel: columns times channels.
    """
    return places * rows * (2 * -(-width // _LANES) + 1)


TABLE = (1 + 1 + 2 * 3 + 1 + _LOOP) / _LANES
"""Of a number through a table of 256 codes, which lies in 16 registers.

For 16 of them a load; one TBL, which looks up the first 64 codes; three times a subtraction of 64 and a TBX, which leaves alone what is
beyond its 64 codes; a store; the end of the loop.
"""

QUANTIZED = (2 + 4 + 4 + 4 + 2 + 2 + 1 + _LOOP) / _LANES
"""Of a number that becomes a code.

For 16 of them two loads of pairs, four divisions, four conversions with rounding, four narrowings to 16 bits that saturate, two additions
of the zero point that saturate, two narrowings to 8 bits, a store, the end of the loop.
"""

_LOOKED_UP = 1 + 1 + (1 + 2 * 3) + 1 + _LOOP

SOFTMAX = ((1 + 1 + _LOOP) + 2 * _LOOKED_UP + (2 + 2 + 2 + 1 + _LOOP) + (1 + 4 + 4 + 4 + 4 + 4 + 2 + 2 + 1 + _LOOP)) / _LANES
"""Of a number in a softmax on codes, with exponentials of 16 bits.

For 16 of them, in five passes: a load and a maximum; twice, for high and for low bytes, since the registers hold one table at a time, a
load, the difference to the maximum, the table as in :data:`TABLE`, a store; two loads, two interleavings, two additions to the sums, a
store of a pair; a load of a pair, four widenings, four conversions to float, four products with scale and reciprocal of the sum, four
conversions with rounding, four narrowings, two additions of the zero point, two narrowings, a store. Five ends of loops.
"""

NORMALIZED = ((2 + 4 + 4 + _LOOP) + (2 + 2 + 2 + 4 + 4 + 2 + _LOOP)) / _LANES
"""Of a number in a normalization in float.

For 16 of them, in two passes: two loads of pairs, four additions, four products that add up; two loads of pairs each of numbers, factors
and offsets, four products and additions for mean and deviation, four for factor and offset, two stores of pairs. Two ends of loops.
"""
