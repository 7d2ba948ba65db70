"""Workers and what they measure; loads little, as the workers load this file again."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from tools.fuzz import campaign
from tools.fuzz.campaign import measured, run_cases
from tools.fuzz.outcome import Outcome


def test_memory_of_one_case_is_that_of_no_other() -> None:
    def held(megabytes: int) -> Outcome:
        return Outcome("graphs", 1, f"{np.ones(megabytes << 17).sum()}")

    large, small = measured(partial(held, 300)).megabytes, measured(partial(held, 1)).megabytes
    assert 250 < large - small < 350


def test_memory_and_time_beyond_the_bounds_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "MOST_MEGABYTES", 1.0)
    (slow, large) = measured(lambda: Outcome("graphs", 1, "", seconds=61.0)).faults  # type: ignore[arg-type]
    assert slow == "took 61 s" and large.startswith("held ")


def test_a_worker_that_dies_hangs_or_fails_itself_does_not_end_the_campaign_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "_PATIENCE", 1 / 60)
    monkeypatch.setattr(campaign, "_serve", disturbed)
    outcomes = {o.seed: o for o in run_cases("graphs", [1, 2, 3], jobs=1, keep=tmp_path)}
    assert [outcomes[seed].endings for seed in (1, 2, 3)] == [("0",), ("the process died",), ("no end",)]
    assert [bool(outcomes[seed].faults) for seed in (1, 2, 3)] == [False, True, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graphs_2", "graphs_3"]
    with pytest.raises(RuntimeError, match="graphs with seed 4"):
        list(run_cases("graphs", [4], jobs=1))


def disturbed(kind: str, asked: Connection) -> None:
    """A worker that answers the first seed, dies at the second, sleeps over the third, and is wrong at the fourth."""
    asked.send("started")
    while True:
        seed, _ = asked.recv()
        if seed == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if seed == 3:
            time.sleep(60)
        asked.send(ValueError("wrong") if seed == 4 else Outcome(kind, seed, "", ("0",)))
