"""Any valid model converts, or is refused for a reason that says what to do; random graphs look for the exception."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from hypothesis import given, note, settings

from converter.runtime.session import open_session, run_session
from converter.testing.random_graphs.cases import METHODS, Case, Ending, convert_case, draw_case, graphs, worse_outputs
from converter.testing.random_graphs.steps_layers import LAYERS, NORMALISATIONS
from converter.testing.random_graphs.steps_movement import MOVEMENT, RARE
from converter.testing.random_graphs.steps_pointwise import POINTWISE

STATED_REASONS: dict[int, tuple[str, ...]] = {
    3: ("no output depends on what the model computes from its inputs",),
}
"""First lines of refusals, by exit code, that are right for a valid model."""


@settings(max_examples=100, deadline=None, derandomize=True)
@given(graphs())
def test_any_model_is_converted_as_planned_or_refused_for_a_reason_and_the_default_is_not_worse_than_mse(case: Case) -> None:
    """Nothing but a ConverterError leaves ``convert``, and that only for one of STATED_REASONS.

    What is written has the interface of the float model and computes what its plan says (``convert`` itself compares
    them). No output is more than 3 dB worse by the default method than by ``mse`` on fresh samples, see
    :mod:`converter.testing.random_graphs.fairness`: with 98 % confidence over the samples, for three draws of the calibration samples,
    below 35 dB, and where the float network is not chaotic.
    """
    note(onnx.printer.to_text(case.model))
    with TemporaryDirectory() as folder:
        endings = [convert_case(case, Path(folder), method) for method in METHODS]
        for method, ending in zip(METHODS, endings, strict=True):
            assert ended_well(ending), f"{method}, --placement {case.placement}: {ending.reason}"
            if ending.code == 0:
                assert interface(onnx.load(ending.path)) == interface(case.model)
        assert worse_outputs(case, Path(folder), endings) == []


def ended_well(ending: Ending) -> bool:
    return ending.code == 0 or any(re.match(f"error: {reason}", ending.reason) for reason in STATED_REASONS.get(ending.code, ()))


def interface(model: onnx.ModelProto) -> list[Any]:
    """Names, types and sizes of inputs and outputs, in order."""
    return [
        [(v.name, v.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]) for v in values]
        for values in (model.graph.input, model.graph.output)
    ]


def test_random_graphs_are_valid_run_and_hold_every_step_sooner_or_later() -> None:
    seen: set[str] = set()
    for seed in range(400):
        case = draw_case(Random(seed))
        seen.update(case.steps)
        if seed < 20:
            onnx.checker.check_model(case.model, full_check=True)
            feed = case.feeds(1, seed=0)[0]
            for name, value in run_session(open_session(case.model, threads=1), feed).items():
                assert np.issubdtype(value.dtype, np.integer) or np.isfinite(value).all(), name
    steps = {**LAYERS, **NORMALISATIONS, **POINTWISE, **MOVEMENT, **RARE}
    assert set(steps) - seen == set()


def test_the_same_seed_gives_the_same_model_and_samples() -> None:
    first, second = draw_case(Random(5)), draw_case(Random(5))
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
    assert all(np.array_equal(first.feeds(2, seed=1)[1][i.name], second.feeds(2, seed=1)[1][i.name]) for i in first.inputs)
