"""What a model takes and gives, by name, without loading what plans are made of: a wrong flag is answered at once."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["IO_FORMS", "IoForm"]

IoForm = Literal["float", "uint8"]
"""What a model takes and gives: float numbers, or pixels as they are, and outputs as codes where they are quantized."""

IO_FORMS: tuple[IoForm, ...] = get_args(IoForm)
