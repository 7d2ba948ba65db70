"""ARM64 cores, emulated: instructions of both models, and whether the int8 one predicts the same everywhere."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime_tests.emulation.compare import compare
from runtime_tests.emulation.count import count
from runtime_tests.emulation.environment import Environment, environment
from runtime_tests.model_pair import ModelPair, stacked
from runtime_tests.processes import Predictions, summed

__all__ = ["DEFAULT_CORES", "Instructions", "measure_cores"]

DEFAULT_CORES = ("cortex-a76",)
_SAMPLES = 8
"""At most, as emulation is slow."""


@dataclass(frozen=True)
class Instructions:
    """Guest instructions of one inference on one thread of a core."""

    core: str
    onnxruntime: str
    float_count: int
    int8_count: int

    @property
    def ratio(self) -> float:
        """Float over int8: above 1, the int8 model takes fewer."""
        return self.float_count / self.int8_count


def measure_cores(model_pair: ModelPair, cores: Sequence[str]) -> tuple[list[Instructions], list[Predictions]]:
    """Count on each core, and compare each one's outputs, and this machine's with the target's kernels, with the first core's.

    Raises:
        UsageError: unknown core, or the emulation is not set up.
        ModelError: a model does not run there.
    """
    env = environment()
    with tempfile.TemporaryDirectory(prefix="runtime-tests-") as folder:
        one, several = (Path(folder, f"{name}.npz") for name in ("one", "several"))
        np.savez(one, **stacked(model_pair.feeds[:1]))  # type: ignore[arg-type]
        np.savez(several, **stacked(model_pair.feeds[:_SAMPLES]))  # type: ignore[arg-type]
        counted = [_count(model_pair, model_pair.float_file(Path(folder)), core, one, env) for core in cores]
        found = compare(model_pair.path, cores, target=model_pair.emulated_target, inputs=several, env=env)
    machines = dict.fromkeys(d.machine for d in found)
    return counted, [summed(cores[0], machine, [d for d in found if d.machine == machine]) for machine in machines]


def _count(model_pair: ModelPair, float_file: Path, core: str, inputs: Path, env: Environment) -> Instructions:
    floats, integers = count([float_file, model_pair.path], core, inputs=inputs, env=env)
    return Instructions(core, floats.machine.onnxruntime, round(floats.median), round(integers.median))
