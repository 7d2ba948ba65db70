"""Fixtures: a small model, and a stand-in for the emulated machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter.testing.models import hybrid_model
from runtime_tests.emulation import emulator
from runtime_tests.emulation.testing.stand_in import emulate_here


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float hybrid network, ``image`` [1, 3, 32, 32] to ``logits`` [1, 10]. Do not write to it."""
    path = tmp_path_factory.mktemp("arm64") / "hybrid.onnx"
    path.write_bytes(hybrid_model().SerializeToString(deterministic=True))
    return path


@pytest.fixture
def no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that would start the emulator runs here instead."""
    monkeypatch.setattr(emulator, "emulate", emulate_here)
