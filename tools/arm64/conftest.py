from __future__ import annotations

from runtime_tests.emulation.testing.fixtures import model, no_emulator
from tools.arm64.testing.llvm_stand_in import half_a_cycle_each

__all__ = ["half_a_cycle_each", "model", "no_emulator"]
