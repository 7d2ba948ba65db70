"""A gate on ARM64 instructions: a change that makes the output of the converter slower fails here."""

from __future__ import annotations

import pytest

from converter.options import Options
from runtime_tests.emulation.count import count
from runtime_tests.emulation.environment import RUNTIMES, environment
from runtime_tests.emulation.setup import missing_steps
from tools.benchmarks.families import convert_family

MACHINES = {runtime: environment(runtime=runtime) for runtime in RUNTIMES}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(any(map(missing_steps, MACHINES.values())), reason="the ARM64 emulation is not set up (make arm64)"),
]

NETWORK, SIZE, CORE = "mobilevit_xxs", 64, "cortex-a76"

STORED = {"oldest": 9_278_000, "newest": 9_530_000}
"""Instructions of one inference of the int8 model, by runtime. To print the figure after a change that is meant to move it::

    python -m pytest tools/benchmarks/instructions_test.py -s
"""

TOLERANCE = 0.02
"""Counts are exact to 0.1 %."""

LEAST_RATIO = {"oldest": 1.9, "newest": 1.75}
"""How many times as many instructions float takes."""


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_converted_model_takes_no_more_instructions_than_before(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()  # where the tests of the families leave the same conversion
    models = [folder / f"{NETWORK}_{SIZE}.onnx", folder / f"{NETWORK}_{SIZE}_arm64_mse.onnx"]
    if not all(model.exists() for model in models):
        convert_family(NETWORK, folder, Options(samples=8, method="mse", threads=2), size=SIZE)
    floats, integers = (found.median for found in count(models, CORE, env=MACHINES[runtime]))
    print(f"\n{CORE}, {MACHINES[runtime].runtime}: int8 {integers:,.0f} instructions, float {floats:,.0f}, ratio {floats / integers:.3f}")
    assert integers <= STORED[runtime] * (1 + TOLERANCE)
    assert floats >= LEAST_RATIO[runtime] * integers
