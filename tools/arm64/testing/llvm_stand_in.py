"""A stand-in for LLVM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from runtime_tests.emulation.blocks import Blocks
from runtime_tests.emulation.testing.stand_in import NOP
from tools.arm64 import model_cycles


@pytest.fixture
def half_a_cycle_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the stand-in of the emulated machine executes takes half a cycle."""

    def block_costs(regions: Sequence[Blocks], core: str, folder: Path) -> dict[bytes, float]:
        assert all(set(blocks) == {NOP} for blocks in regions)
        return {NOP: 0.5}

    monkeypatch.setattr(model_cycles, "block_costs", block_costs)
    monkeypatch.setattr(model_cycles, "llvm_version", lambda: "19.1.7")
