"""``--report``: a page beside the model, which it does not change."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import VerificationError
from converter.stages import verify as verify_stage
from converter.testing.command import QUICK, check_refusal, names
from converter.testing.models import Run

pytestmark = pytest.mark.usefixtures("few_turns")


def payload(page: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(page.read_text().split('id="data">')[1].split("</script>")[0])
    return data


@pytest.mark.parametrize("method", [[], ["--method", "q-hyvit"]])
def test_the_model_is_the_same_with_and_without(run: Run, source: Path, tmp_path: Path, method: list[str]) -> None:
    assert run(source, tmp_path / "plain.onnx", *QUICK, *method).code == 0
    with_page = run(
        source, tmp_path / "reported.onnx", *QUICK, *method, "--report", tmp_path / "page.html", "--json", tmp_path / "page.json"
    )
    assert with_page.code == 0, with_page.err
    assert names(tmp_path) == ["page.html", "page.json", "plain.onnx", "reported.onnx"]
    assert (tmp_path / "plain.onnx").read_bytes() == (tmp_path / "reported.onnx").read_bytes()


def test_the_same_conversion_gives_the_same_page(run: Run, source: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run(source, tmp_path / "out.onnx", *QUICK, "--report", tmp_path / f"{name}.html").code == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_every_figure_of_the_page_is_in_the_json(run: Run, source: Path, tmp_path: Path) -> None:
    assert (
        run(source, tmp_path / "out.onnx", "--samples", "4", "--report", tmp_path / "page.html", "--json", tmp_path / "page.json").code == 0
    )
    page, record = payload(tmp_path / "page.html"), json.loads((tmp_path / "page.json").read_text())
    assert page["summary"] == record["summary"]
    assert [bar["after"] for bar in page["bars"]] == [record["integer_bytes"], record["predicted"], record["second_cost"]["predicted"]]
    assert page["outputs"][0]["db"] == record["outputs"][0]["sqnr_db"]
    assert page["warnings"] == record["warnings"] and page["notes"] == record["notes"]
    columns, tensors = page["tensors"], record["diagnosis"]["tensors"]
    assert columns["name"] == [t["name"] for t in tensors]
    pairs = {
        "low": "low",
        "high": "high",
        "clipped": "clipped",
        "sensitivity": "sensitivity",
        "floatCost": "float_cost",
        "integerCost": "integer_cost",
    }
    for column, field in pairs.items():
        for shown, exact in zip(columns[column], (t[field] for t in tensors), strict=True):
            assert (shown is None) == (exact is None)
            assert shown is None or math.isclose(shown, exact, rel_tol=1e-3)
    for shown, exact in zip(columns["histogram"], (t["histogram"] for t in tensors), strict=True):
        assert shown is None or shown[4] == exact["counts"]
    assert [(w["found"], w["do"]) for w in page["worst"]] == [(w["found"], w["do"]) for w in record["diagnosis"]["worst"]]
    assert any(s is not None for s in columns["sensitivity"]), "by the default method"


def test_a_dry_run_shows_the_plan(run: Run, source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out.onnx", *QUICK, "--dry-run", "--report", tmp_path / "page.html").code == 0
    assert names(tmp_path) == ["page.html"]
    page = payload(tmp_path / "page.html")
    assert page["outputs"] == [] and "dry run" in " ".join(page["summary"]["lost"])
    assert page["tensors"]["accumulated"][0] is not None


def test_a_plan_that_was_read_has_a_page_too(run: Run, source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out.onnx", *QUICK, "--plan-out", tmp_path / "plan.json").code == 0
    again = run(source, tmp_path / "out.onnx", "--samples", "4", "--plan-in", tmp_path / "plan.json", "--report", tmp_path / "page.html")
    assert again.code == 0, again.err
    assert payload(tmp_path / "page.html")["ranking"] == "by the SQNR of their rounding alone"


def test_nothing_is_left_of_a_conversion_that_fails(run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise VerificationError("it is not what was planned", hint="report it")

    monkeypatch.setattr(verify_stage, "verify", refuse)
    check_refusal(run(source, tmp_path / "out.onnx", *QUICK, "--report", tmp_path / "page.html"), 5)
    assert names(tmp_path) == []


@pytest.mark.parametrize("path", ["missing/page.html", "."])
def test_a_page_that_cannot_be_written_is_refused_before_anything_is_done(run: Run, source: Path, tmp_path: Path, path: str) -> None:
    check_refusal(run(source, tmp_path / "out.onnx", *QUICK, "--report", tmp_path / path), 2, "--report")
    assert names(tmp_path) == []


def test_two_results_in_one_file_are_refused(run: Run, source: Path, tmp_path: Path) -> None:
    check_refusal(run(source, tmp_path / "out.onnx", *QUICK, "--report", tmp_path / "out.onnx"), 2)
    assert names(tmp_path) == []


def test_memory_of_figures_does_not_grow_with_samples(source: Path) -> None:
    """What is kept of a tensor is the same after one sample and after many."""
    from converter.diagnosis.accumulate import Accumulator

    found = Accumulator(None, -3.0, 3.0, 16)

    def size() -> int:
        return sum(v.nbytes for v in vars(found).values() if isinstance(v, np.ndarray))

    found.add(np.ones((1, 4, 8, 8), np.float32), None)
    before = size()
    for _ in range(9):
        found.add(np.ones((1, 4, 8, 8), np.float32), None)
    assert size() == before < 500
