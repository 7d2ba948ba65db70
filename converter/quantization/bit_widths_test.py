from __future__ import annotations

import pytest

from converter.errors import UsageError
from converter.quantization.bit_widths import BitWidths


@pytest.mark.parametrize(("text", "widths"), [("W8A8", (8, 8)), ("w4a8", (4, 8)), ("W8a5", (8, 5)), ("W6A7", (6, 7))])
def test_texts_are_parsed_and_written_in_capitals(text: str, widths: tuple[int, int]) -> None:
    parsed = BitWidths.parse(text)
    assert parsed == BitWidths(*widths) and str(parsed) == text.upper()


@pytest.mark.parametrize("text", ["", "8", "W8", "W3A8", "W8A9", "W16A16", "W8A8 ", "int8", "W٨A٨"])
def test_texts_that_are_no_widths(text: str) -> None:
    with pytest.raises(UsageError, match="not a bit width"):
        BitWidths.parse(text)


@pytest.mark.parametrize("widths", [(3, 8), (8, 9)])
def test_numbers_that_are_no_widths(widths: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=f"'W{widths[0]}A{widths[1]}' is not a bit width"):
        BitWidths(*widths)
