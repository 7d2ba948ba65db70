"""Model files for tests, and how they are refused."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from converter.errors import ModelError
from converter.load.model import load

__all__ = ["refusal", "written"]


def written(folder: Path, model: onnx.ModelProto | bytes) -> Path:
    """The model, or these bytes, as a file in the folder."""
    path = folder / "in.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def refusal(path: Path) -> ModelError:
    """What loading the file says; it names the file and says what to do."""
    with pytest.raises(ModelError) as caught:
        load(path)
    assert caught.value.exit_code == 3
    assert caught.value.what and str(path) in caught.value.where and caught.value.hint
    return caught.value
