"""All that a validation found, the figures that gates are about, and the same as JSON."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime_tests.emulation.cores import CORES, short_name

if TYPE_CHECKING:  # who only asks which figures there are, such as gates, needs no heavy library
    from converter.runtime.latency import LatencyRatio
    from converter.verify.coverage_by_profile import Coverage
    from runtime_tests.confinement import Confinement
    from runtime_tests.cores import Instructions
    from runtime_tests.parity import Parity
    from runtime_tests.processes import Memory, Predictions
    from runtime_tests.quality import Accuracy, Closeness

__all__ = ["KINDS", "Kind", "Results", "figures", "results_json"]

_MEGA = 1e6


@dataclass(frozen=True)
class Kind:
    """What a figure is.

    Attributes:
        meaning: in a few words.
        higher_is_better: or lower, if not.
        needs: what has to be given so that it is measured; empty if nothing.
        percent: it is a share in percent.
        steady: it comes out the same on another day, so that a baseline compares it unless told otherwise.
    """

    meaning: str
    higher_is_better: bool
    needs: str = ""
    percent: bool = False
    steady: bool = True


_LABELS = "--data with images in class folders"
_SCORES = "a model with an output of class scores"
_OLDEST = "an older ONNX Runtime (--oldest DIR)"
_SHORT = {short_name(core): core for core in CORES}

KINDS: Mapping[str, Kind] = {
    "top1": Kind("top-1 accuracy of the int8 model", True, _LABELS, percent=True),
    "drop": Kind("top-1 accuracy of float minus that of int8, in points", False, _LABELS, steady=False),
    "agreement": Kind("predictions equal to float's", True, _SCORES, percent=True),
    "sqnr_db": Kind("signal to quantization noise ratio against float", True),
    "coverage": Kind("multiply-accumulates in integer kernels", True, percent=True),
    "parity_db": Kind("running model against its plan, or its own graph, unfused", True),
    "memory_mb": Kind("peak memory of a process that runs the int8 model once", False, steady=False),
    "size_mb": Kind("size of the int8 file", False),
    "latency_ratio": Kind("float time over int8 time on this machine", True, steady=False),
    "version_agreement": Kind("predictions equal to those under the oldest runtime", True, _OLDEST, percent=True),
    "core_agreement": Kind("predictions equal on all ARM64 cores and here", True, "--arm64", percent=True),
    **{f"ratio_{name}": Kind(f"float over int8 instructions, {core}", True, f"--arm64 --core {core}") for name, core in _SHORT.items()},
    **{
        f"instructions_{name}": Kind(f"millions of instructions of the int8 model, {core}", False, f"--arm64 --core {core}")
        for name, core in _SHORT.items()
    },
}
"""Every figure that can be measured. ``drop`` is left out of baselines, as a share of a small difference says nothing; ``top1`` is in."""


@dataclass(frozen=True)
class Results:
    """What was measured; None or empty where it was not.

    Attributes:
        models: file name, sha256 and target, by "float" and "int8".
        accuracy: with labels.
        closeness: over all labelled images, else over the samples.
        coverage, confinement, parity, memory, latency: as their classes say.
        instructions: of each core.
        cores: outputs of other cores, and of this machine, against the first core's.
        version: outputs under the oldest runtime against the installed one's.
        skipped: what was not measured, and why.
    """

    models: Mapping[str, Mapping[str, str]]
    accuracy: Accuracy | None
    closeness: Closeness
    coverage: Coverage
    confinement: Confinement
    parity: Parity
    memory: Memory
    latency: LatencyRatio
    instructions: tuple[Instructions, ...] = ()
    cores: tuple[Predictions, ...] = ()
    version: Predictions | None = None
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)


def figures(results: Results) -> dict[str, float]:
    """The measured figures, in the order of :data:`KINDS`."""
    found: dict[str, float | None] = {
        "agreement": results.closeness.agreement,
        "sqnr_db": results.closeness.sqnr_db,
        "coverage": results.coverage.percent,
        "parity_db": results.parity.db,
        "memory_mb": results.memory.int8_peak / _MEGA,
        "size_mb": results.memory.int8_size / _MEGA,
        "latency_ratio": results.latency.ratio,
        "core_agreement": min((share for found in results.cores if (share := _share(found)) is not None), default=None),
        "version_agreement": _share(results.version) if results.version is not None else None,
    }
    if results.accuracy is not None:
        found |= {"top1": results.accuracy.int8_top1, "drop": results.accuracy.drop}
    for counted in results.instructions:
        name = short_name(counted.core)
        found |= {f"ratio_{name}": counted.ratio, f"instructions_{name}": counted.int8_count / _MEGA}
    return {name: value for name in KINDS if (value := found.get(name)) is not None}


def _share(found: Predictions) -> float | None:
    return 100.0 * found.equal / found.predictions if found.predictions else None


def results_json(results: Results) -> str:
    """Everything; ``figures`` is what a baseline is read from."""
    import onnxruntime

    machine = {"architecture": platform.machine(), "onnxruntime": onnxruntime.__version__}
    content = {"machine": machine, "figures": figures(results), **dataclasses.asdict(results)}
    return json.dumps(content, indent=2) + "\n"
