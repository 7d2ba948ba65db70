from __future__ import annotations

from tools.arm64.testing.llvm_stand_in import half_a_cycle_each

__all__ = ["half_a_cycle_each"]
