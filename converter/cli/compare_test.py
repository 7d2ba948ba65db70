"""``bridgequant compare A B``: what is printed and written, and how bad input ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from converter.testing.command import QUICK, check_refusal, names
from converter.testing.models import Run, SaveHybrid

pytestmark = pytest.mark.usefixtures("few_turns")
FEW = ["--samples", "4", "--threads", "1"]


@pytest.fixture
def both(run: Run, source: Path, tmp_path: Path) -> tuple[Path, Path]:
    """An int8 model and its plan."""
    out, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    assert run(source, out, *QUICK, "--plan-out", plan).code == 0
    return out, plan


def test_a_table_and_what_to_do_next(run: Run, source: Path, both: tuple[Path, Path]) -> None:
    result = run("compare", source, both[0], *FEW)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].split() == [source.name, "out.onnx"]
    assert lines[1].startswith("size") and lines[-1].startswith("Measure the accuracy")
    assert "output logits" in result.out and "exact" in result.out
    for unit in ("instructions", "cycles"):
        assert len([line for line in lines if line.startswith(f"predicted million {unit}")]) == 1
    assert len({len(line) for line in lines[:2]}) == 1, "columns stand below each other"


def test_a_plan_is_as_good_as_its_model(run: Run, source: Path, both: tuple[Path, Path], tmp_path: Path) -> None:
    page, record = tmp_path / "page.html", tmp_path / "page.json"
    result = run("compare", *both, "--model", source, *FEW, "--report", page, "--json", record, "-q")
    assert (result.code, result.out) == (0, ""), result.err
    assert names(tmp_path) == ["out.onnx", "page.html", "page.json", "plan.json"]
    first, second = (json.loads(record.read_text())[side] for side in ("first", "second"))
    assert (first["kind"], second["kind"]) == ("model", "plan")
    assert first["outputs"][0]["sqnr_db"] == pytest.approx(second["outputs"][0]["sqnr_db"], abs=0.3)


def test_json_to_stdout_is_json_alone(run: Run, source: Path, both: tuple[Path, Path]) -> None:
    result = run("compare", source, both[0], *FEW, "--json", "-")
    found = json.loads(result.out)
    assert found["second"]["name"] == "out.onnx"
    for unit in ("predicted", "second"):
        assert 0.0 < found["second"][unit] < found["first"][unit], "int8 costs less than float in either unit of the target"


# Bad input


def test_too_few_paths(run: Run) -> None:
    check_refusal(run("compare", "a.onnx"), 2, "B")


def test_an_unknown_flag(run: Run) -> None:
    check_refusal(run("compare", "a.onnx", "b.onnx", "--odd"), 2, "--odd")


def test_no_such_file(run: Run, source: Path, tmp_path: Path) -> None:
    check_refusal(run("compare", source, tmp_path / "none.onnx", *FEW), 3, "none.onnx")


def test_two_float_models(run: Run, source: Path, save_hybrid: SaveHybrid) -> None:
    check_refusal(run("compare", source, save_hybrid(seed=1), *FEW), 2, "both are float models")


def test_neither_is_the_float_model(run: Run, both: tuple[Path, Path]) -> None:
    check_refusal(run("compare", *both, *FEW), 2, "--model FLOAT.onnx")


def test_a_file_that_is_no_plan(run: Run, source: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text("{}")
    check_refusal(run("compare", source, tmp_path / "odd.json", *FEW), 2, "odd.json")


def test_a_plan_of_another_network(run: Run, both: tuple[Path, Path], save_hybrid: SaveHybrid) -> None:
    check_refusal(run("compare", save_hybrid(named=False), both[1], *FEW), 2, "plan.json")


def test_an_output_that_is_an_input_is_refused(run: Run, source: Path, both: tuple[Path, Path]) -> None:
    before = both[0].read_bytes()
    check_refusal(run("compare", source, both[0], *FEW, "--report", both[0]), 2)
    assert both[0].read_bytes() == before


def test_nothing_is_left_when_one_file_cannot_be_written(run: Run, source: Path, both: tuple[Path, Path], tmp_path: Path) -> None:
    check_refusal(
        run("compare", source, both[0], *FEW, "--report", tmp_path / "page.html", "--json", tmp_path / "missing" / "page.json"), 2
    )
    assert names(tmp_path) == ["out.onnx", "plan.json"]


@pytest.mark.parametrize("samples", ["0", "-3", "many"])
def test_samples_that_make_no_sense(run: Run, source: Path, both: tuple[Path, Path], samples: str) -> None:
    check_refusal(run("compare", source, both[0], "--samples", samples), 2, "samples")
