"""What whoever watches a conversion is told: stages, their parts, and counts within them."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter import Options, convert
from converter.methods.q_hyvit.method import SHARES
from converter.progress import Progress

pytestmark = pytest.mark.usefixtures("few_turns")


class Watcher:
    """Remembers parts and counts by stage."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.parts: dict[str, list[tuple[str, float, float]]] = {}
        self.counts: dict[str, list[tuple[int, int]]] = {}

    def progress(self) -> Progress:
        return Progress(
            stage=self.stages.append,
            step=lambda done, total: self.counts.setdefault(self.stages[-1], []).append((done, total)),
            part=lambda name, begin, end: self.parts.setdefault(self.stages[-1], []).append((name, begin, end)),
        )


def test_plan_and_verify_tell_how_far_they_are(source: Path) -> None:
    watcher = Watcher()
    convert(source, options=Options(samples=4, threads=1), progress=watcher.progress())
    assert [name for name, _, _ in watcher.parts["plan"]] == list(SHARES), "each part of the method, in its order"
    assert [name for name, _, _ in watcher.parts["verify"]] == ["samples", "simulation", "kernels"]
    for stage in ("plan", "verify"):
        ends = [0.0, *(end for _, _, end in watcher.parts[stage])]
        begins = [begin for _, begin, _ in watcher.parts[stage]]
        assert begins == pytest.approx(ends[:-1]) and ends[-1] == pytest.approx(1.0), "the parts follow each other, and are the whole"
        assert len(watcher.counts[stage]) >= {"plan": 20, "verify": 3}[stage], "one sample was held aside"
        assert all(0 <= done <= total for done, total in watcher.counts[stage])


def test_a_method_without_parts_has_none(source: Path) -> None:
    watcher = Watcher()
    convert(source, options=Options(samples=4, threads=1, method="minmax"), progress=watcher.progress(), dry_run=True)
    assert watcher.parts == {}
