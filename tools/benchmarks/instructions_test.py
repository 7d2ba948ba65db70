"""A gate on ARM64 instructions: a change that makes the output of the converter slower fails here."""

from __future__ import annotations

import pytest

from converter.options import Options
from runtime_tests.emulation.count import count
from runtime_tests.emulation.environment import environment
from runtime_tests.emulation.setup import missing_steps
from tools.benchmarks.families import convert_family

ENV = environment()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing_steps(ENV)), reason="the ARM64 emulation is not set up (make arm64)")]

NETWORK, SIZE, CORE = "mobilevit_xxs", 64, "cortex-a76"

STORED = 9_375_000
"""Instructions of one inference of the int8 model. To print the figure after a change that is meant to move it::

    python -m pytest tools/benchmarks/instructions_test.py -s
"""

TOLERANCE = 0.02
"""Counts are exact to 0.1 %."""

LEAST_RATIO = 1.9
"""How many times as many instructions float takes."""


def test_the_converted_model_takes_no_more_instructions_than_before(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()  # where the tests of the families leave the same conversion
    models = [folder / f"{NETWORK}_{SIZE}.onnx", folder / f"{NETWORK}_{SIZE}_arm64_mse.onnx"]
    if not all(model.exists() for model in models):
        convert_family(NETWORK, folder, Options(samples=8, method="mse", threads=2), size=SIZE)
    floats, integers = (found.median for found in count(models, CORE, env=ENV))
    print(f"\n{CORE}: int8 {integers:,.0f} instructions, float {floats:,.0f}, ratio {floats / integers:.3f}")
    assert integers <= STORED * (1 + TOLERANCE)
    assert floats >= LEAST_RATIO * integers
