"""Grids that are not uniform in a plan: saved, read back, followed to the byte, and refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from converter.errors import UsageError
from converter.options import Options
from converter.pipeline import convert
from converter.testing.models import SaveHybrid

pytestmark = pytest.mark.usefixtures("few_turns")


def test_a_plan_with_them_is_followed_or_refused(save_hybrid: SaveHybrid, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    report = convert(save_hybrid(), tmp_path / "a.onnx", Options(samples=3, threads=1, method="fq-vit"), plan_out=path)
    assert report.verdict is not None and (report.verdict.parity_db or 0.0) > 60.0
    reasons = {op.reason for op in report.plan.ops.values()}
    assert any("integer exponentials" in r for r in reasons) and any("one scale per channel" in r for r in reasons)
    convert(save_hybrid(), tmp_path / "b.onnx", Options(samples=3, threads=1, plan_in=path))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()

    def refused(change: dict[str, Any]) -> str:
        plan = json.loads(path.read_text())
        name = next(n for n, c in plan["nonuniform_quantizers"].items() if c["kind"] == "log-int-softmax")
        plan["nonuniform_quantizers"][name].update(change)
        edited = tmp_path / "edited.json"
        edited.write_text(json.dumps(plan))
        with pytest.raises(UsageError) as caught:
            convert(save_hybrid(), tmp_path / "c.onnx", Options(samples=3, threads=1, plan_in=edited))
        return caught.value.what

    assert "cannot stand there" in refused({"kind": "power-of-two"})
    assert "damaged" in refused({"kind": "wavy"})
    assert "12 bits" in refused({"bits": 12})
    assert not (tmp_path / "c.onnx").exists()
