"""Converted files in many versions of ONNX Runtime, compared with the newest of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from converter.errors import ModelError
from converter.load.metadata import REQUIRES
from runtime_tests.model_pair import ModelPair, stacked
from runtime_tests.processes import Predictions, predictions, run_child

__all__ = ["LARGEST_DIFFERENCE", "LEAST_AGREEMENT", "Cell", "promised", "run_versions"]

LEAST_AGREEMENT = 0.97
"""Share of predictions that must be those of the newest version. Other kernels round otherwise, which moves single codes."""

LARGEST_DIFFERENCE = 0.1
"""Of the largest output, where there are no predictions."""

_LONGEST = 70  # of a refusal in the table


@dataclass(frozen=True)
class Cell:
    """A file in a version of the runtime.

    Attributes:
        version: of the runtime.
        promised: whether the file says that this version is enough.
        refusal: why it does not run; empty if it does.
        found: its outputs beside those of the newest version; None if it does not run.
    """

    version: Version
    promised: bool
    refusal: str
    found: Predictions | None

    @property
    def agrees(self) -> bool:
        """Whether the file runs, and computes what it computes in the newest version."""
        if self.found is None:
            return False
        if self.found.predictions:
            return self.found.equal >= LEAST_AGREEMENT * self.found.predictions
        return self.found.largest <= LARGEST_DIFFERENCE

    @property
    def text(self) -> str:
        """For the table."""
        if self.found is None:
            return f"refused: {self.refusal[:_LONGEST].replace('|', ' ').strip()}"
        if self.found.largest == 0:
            return "equal"
        same = f"{self.found.equal} of {self.found.predictions} the same, " if self.found.predictions else ""
        return f"{'' if self.agrees else 'WRONG: '}{same}{self.found.largest:.1%} off"


def promised(model_pair: ModelPair, version: Version) -> bool:
    """Whether a file's metadata say that a version of the runtime is enough for it; a file that says nothing promises nothing."""
    metadata = {entry.key: entry.value for entry in model_pair.model.metadata_props}
    return REQUIRES in metadata and version in Requirement(metadata[REQUIRES]).specifier


def run_versions(model_pair: ModelPair, folders: Mapping[Version, Path]) -> list[Cell]:
    """Run a file in each version, in a process of its own.

    Args:
        model_pair: of which the int8 file runs, on its samples.
        folders: of the versions, as pip's ``--target`` leaves them; the newest is what the others are compared with.

    Raises:
        ModelError: it does not run in the newest version.
    """
    samples, newest = stacked(model_pair.feeds), max(folders)
    _, wanted = run_child(model_pair.path, model_pair.settings, samples, folders[newest])
    cells = []
    for version, folder in sorted(folders.items()):
        try:
            told, got = run_child(model_pair.path, model_pair.settings, samples, folder)
        except ModelError as error:
            cells.append(Cell(version, promised(model_pair, version), error.what.partition(": ")[2], None))
            continue
        found = predictions(f"ONNX Runtime {newest}", f"ONNX Runtime {told['onnxruntime']}", wanted, got)
        cells.append(Cell(version, promised(model_pair, version), "", found))
    return cells
