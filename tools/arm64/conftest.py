from __future__ import annotations

from runtime_tests.emulation.testing.fixtures import model, no_emulator

__all__ = ["model", "no_emulator"]
