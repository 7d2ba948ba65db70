"""Fixtures of these tests: a small float model and what the converter's stages make of it, as files."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from converter.testing.sketch import classifier, emitted, plan_for
from runtime_tests.testing.files import Files, MakeFiles


@pytest.fixture
def make_files(tmp_path: Path) -> MakeFiles:
    """A function that writes :func:`classifier` and its conversion; with or without what a converted file says of itself."""

    def make(bits: tuple[int, int] = (8, 8), target: str = "arm64", *, says: bool = True) -> Files:
        metadata = {"bridgequant.target": target, "bridgequant.bits": f"W{bits[0]}A{bits[1]}"} if says else {}
        files = Files(tmp_path / "float.onnx", tmp_path / "int8.onnx")
        files.floats.write_bytes(ir.to_proto(classifier()).SerializeToString())
        files.int8.write_bytes(emitted(plan_for(classifier(), target, bits=bits), metadata).SerializeToString())
        return files

    return make
