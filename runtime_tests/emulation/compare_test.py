from __future__ import annotations

import math
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.runtime.session import open_session
from runtime_tests.emulation import compare as module
from runtime_tests.emulation import emulator
from runtime_tests.emulation.compare import compare, difference
from runtime_tests.emulation.guest import load_tensors, save_tensors
from runtime_tests.emulation.testing.stand_in import emulate_here


def test_differences_and_predictions() -> None:
    wanted = np.array([[[1.0, 5.0, 2.0]], [[-7.0, 0.0, 3.0]]], np.float32)
    got = np.array([[[1.0, 5.5, 2.0]], [[-7.0, 4.0, 3.0]]], np.float32)
    found = difference("max", "1.23.2", "logits", wanted, got)
    assert (found.largest, found.scale, found.predictions, found.equal) == (4.0, 7.0, 2, 1)


def test_codes_do_not_wrap_around() -> None:
    found = difference("max", "", "codes", np.array([[127]], np.int8), np.array([[-128]], np.int8))
    assert (found.largest, found.predictions) == (255.0, 0)


def test_infinities_are_equal_and_nan_is_not() -> None:
    infinite = np.array([[math.inf, 1.0]])
    assert difference("max", "", "y", infinite, infinite).largest == 0.0
    assert math.isnan(difference("max", "", "y", infinite, np.array([[math.nan, 1.0]])).largest)


def test_all_machines_are_compared_with_the_first(model: Path, no_emulator: None) -> None:
    found = compare(model, ["cortex-a53", "max", "cortex-a53"], samples=3)
    assert [each.machine for each in found] == ["max", platform.machine()]
    assert all((each.predictions, each.equal) == (3, 3) for each in found)
    assert found[0].largest == 0.0
    assert found[1].largest < 1e-5 < found[1].scale


def test_a_core_that_computes_something_else_is_seen(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def emulate(jobs: Any, core: str, env: Any) -> Any:
        found = emulate_here(jobs, core, env)
        if core == "max":
            save_tensors(jobs[0].outputs, {name: -value for name, value in load_tensors(jobs[0].outputs).items()})
        return found

    monkeypatch.setattr(emulator, "emulate", emulate)
    wrong, right = compare(model, ["cortex-a76", "max"], samples=2)
    assert wrong.equal == 0
    assert wrong.largest == pytest.approx(2 * wrong.scale)
    assert right.equal == 2


def test_this_machine_runs_the_kernels_of_the_target(model: Path, no_emulator: None, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []

    def opened(*arguments: Any, settings: Any, **flags: Any) -> Any:
        used.append(settings)
        return open_session(*arguments, **flags)

    monkeypatch.setattr(module, "open_session", opened)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    compare(model, ["max"], target="arm64")
    compare(model, ["max"], target="x86")
    assert used == [{"session.qdqisint8allowed": "1"}, {}]
