"""Watchers: a clock that counts the seconds of each stage."""

from __future__ import annotations

import time

import pytest

from converter.progress import Progress, timed


def test_the_seconds_of_stages_add_up_and_the_last_one_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [100.0], list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress, seconds = timed(Progress(stage=told.append))
    assert seconds() == {}
    for name, lasts in (("load", 1.0), ("plan", 5.0), ("load", 2.0), ("verify", 3.0)):
        progress.stage(name)
        now[0] += lasts
    assert seconds() == {"load": 3.0, "plan": 5.0, "verify": 3.0}
    assert told == ["load", "plan", "load", "verify"], "whoever watches is still told"
    now[0] += 1.0
    assert seconds()["verify"] == 4.0
