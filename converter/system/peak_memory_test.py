"""The peak is that of this process, and no less than what it holds."""

from __future__ import annotations

import numpy as np
import pytest

from converter.system.peak_memory import peak_memory

pytest.importorskip("resource")


def test_what_is_held_is_counted_and_what_was_held_too() -> None:
    held = np.ones(1 << 26)
    before = peak_memory()
    assert before > held.nbytes
    del held
    assert peak_memory() >= before
