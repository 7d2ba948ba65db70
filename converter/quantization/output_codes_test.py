from __future__ import annotations

import numpy as np
import pytest

from converter.quantization.output_codes import OUTPUT_CODES, output_codes_text, output_grids, with_numbers
from converter.quantization.parameters import QuantParams

GRIDS = {"logits": QuantParams((0.5,), (-3,)), "mask": QuantParams((0.00390625,), (0,), signed=False)}


def test_what_the_metadata_say_is_read_back() -> None:
    text = output_codes_text(GRIDS)
    assert text == (
        '{"logits": {"type": "int8", "scale": 0.5, "zero_point": -3}, "mask": {"type": "uint8", "scale": 0.00390625, "zero_point": 0}}'
    )
    assert output_grids({OUTPUT_CODES: text}) == GRIDS
    assert output_grids({}) == {}


def test_codes_stand_for_numbers_and_what_is_no_code_stays() -> None:
    outputs = {"logits": np.array([-128, -3, 127], np.int8), "labels": np.array([1, 2])}
    numbers = with_numbers(outputs, GRIDS)
    assert numbers["logits"].dtype == np.float32 and numbers["logits"].tolist() == [-62.5, 0.0, 65.0]
    assert numbers["labels"] is outputs["labels"]


@pytest.mark.parametrize("text", ["[]", "{", '{"y": 1}', '{"y": {"type": "int4", "scale": 1, "zero_point": 0}}', '{"y": {"type": "int8"}}'])
def test_damaged_metadata_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="are damaged"):
        output_grids({OUTPUT_CODES: text})
