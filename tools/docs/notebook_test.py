"""The notebook of the documentation runs from top to bottom, here of fewer samples and with less search, and is kept without outputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tools.docs.pages import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
MOST_CELLS = 20

QUICK = "samples=4, parts=SearchParts(granularity=False, adaptive_rounding=False, weight_correction=False, piecewise_linear=False)"
"""Without what takes most of a search and nothing here shows."""


def test_it_is_short_and_has_no_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) < MOST_CELLS
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "models").symlink_to(ROOT / "models")
    notebook = nbformat.read(shutil.copy(NOTEBOOK, tmp_path / "docs"), as_version=4)
    conversions = [cell for cell in notebook.cells if "Options(calib=IMAGES" in cell.source]
    assert len(conversions) == 2
    for cell in conversions:
        cell.source = "from converter import SearchParts\n" + cell.source.replace("Options(calib=IMAGES", f"Options(calib=IMAGES, {QUICK}")
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path / "docs")}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    told = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    pictures = [output for output in outputs if output.output_type == "display_data" and "image/png" in output.data]
    assert "logits:" in told and "of the multiply-accumulates run in integer" in told
    assert len(pictures) == 3
    for name in ("model.onnx", "model_int8.onnx", "model_x86.onnx", "report.html"):
        assert (tmp_path / "build" / "notebook" / name).stat().st_size > 0
