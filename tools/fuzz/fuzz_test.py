"""A few cases of each campaign, and that what is wrong with a conversion is noticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from converter.testing.models import hybrid_model
from converter.testing.random_graphs.cases import Ending, draw_case
from tools.fuzz import data, files, graphs, mutations
from tools.fuzz.__main__ import main
from tools.fuzz.campaign import run_cases, summary
from tools.fuzz.outcome import Outcome, complaints

# A few cases of each kind


@pytest.mark.parametrize("seed", range(3))
def test_a_random_graph_converts_and_is_not_worse_than_mse(seed: int, tmp_path: Path) -> None:
    outcome = graphs.run(seed, tmp_path)
    assert outcome.faults == ()
    assert outcome.endings[:2] == ("0", "0") and "stock tool" in outcome.endings[2]
    assert set(outcome.figures) == {"mse dB", "q-hyvit dB"}


@pytest.mark.parametrize("name", [name for name in data.BREAKS if "(" not in name and name != "bomb"])
def test_broken_data_are_used_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "BREAKS", {name: data.BREAKS[name]})
    outcome = data.run(0, tmp_path)
    assert (outcome.what, outcome.faults) == (name, ())


@pytest.mark.parametrize("name", list(mutations.DAMAGES))
def test_a_damaged_model_is_converted_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "float.onnx").write_bytes(hybrid_model().SerializeToString())
    monkeypatch.setattr(mutations, "prepare", lambda: [tmp_path / "float.onnx"])
    monkeypatch.setattr(mutations, "DAMAGES", {name: mutations.DAMAGES[name]})
    outcome = mutations.run(1, tmp_path)
    assert outcome.what.startswith(f"float: {name}")
    assert outcome.faults == ()


def test_a_conversion_that_is_killed_as_it_starts_leaves_the_old_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "DISTURBANCES", {"killed": lambda folder, _: [files._convert(folder, files._KILLED, str(folder), "1")]})
    outcome = files.run(2, tmp_path)
    assert (outcome.endings, outcome.faults) == (("-9",), ())


def test_the_same_seed_does_the_same_damage() -> None:
    assert mutations.damaged(hybrid_model(), Random(3)) == mutations.damaged(hybrid_model(), Random(3))
    changed = {mutations.damaged(hybrid_model(), Random(seed))[0] for seed in range(30)}
    assert len(changed) > 25


# What is noticed


def test_a_wrong_exit_code_a_missing_or_stray_output_and_a_long_message_are_faults() -> None:
    message = "error: what\n  at: where\n  do: this\n"
    assert complaints(0, (0, 3), True, "") == complaints(3, (0, 3), False, f"[12 s] slow\n{message}") == []
    assert complaints(1, (0, 3), False, message) == ["exit 1:   do: this"]
    assert complaints(0, (0, 3), False, "") == ["exit 0, and the output is missing"]
    assert complaints(3, (0, 3), True, message) == ["exit 3, and the output is there"]
    for err in ("", "Traceback\n", message + "and more\n"):
        assert len(complaints(3, (0, 3), False, err)) == 1


@pytest.mark.parametrize(("code", "seconds", "fault"), [(1, 1.0, "exit 1"), (5, 1.0, "exit 5"), (0, 61.0, "61 s")])
def test_an_unexpected_end_and_a_slow_conversion_are_faults(code: int, seconds: float, fault: str) -> None:
    ending = Ending(code, "Traceback\nZeroDivisionError: no" if code else "", Path("int8.onnx"), seconds)
    assert [fault in found for found in graphs._faults(draw_case(Random(0)), ending)] == [True]
    assert graphs._faults(draw_case(Random(0)), replace(ending, code=3, seconds=1.0)) == []


def test_an_output_that_is_neither_old_nor_a_model_is_a_fault(tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    assert files._whole(output, False) == [] and files._whole(output, True) == ["the old output is gone"]
    output.write_bytes(hybrid_model().SerializeToString())
    assert files._whole(output, False) == []
    output.write_bytes(hybrid_model().SerializeToString()[:1000])
    assert "broken" in files._whole(output, False)[0]


# The campaign


@pytest.mark.slow
def test_a_campaign_in_workers_ends_with_a_line_of_figures() -> None:
    outcomes = list(run_cases("data", range(2), jobs=1))
    line = summary("data", outcomes)
    assert line.startswith("data: 2 cases, 0 with faults; ") and "MB (seed " in line


def test_faults_are_printed_with_their_seed_and_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def found(kind: str, seeds: range, jobs: int, keep: Path | None) -> list[Outcome]:
        return [Outcome(kind, seed, "a case", ("0",), ("a fault",) if seed == 8 else ()) for seed in seeds]

    monkeypatch.setattr("tools.fuzz.__main__.run_cases", found)
    assert main(["data", "--count", "3", "--seed", "7"]) == 5
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "data --count 1 --seed 8: a case: a fault" and out[1].startswith("data: 3 cases, 1 with faults; 3 x 0")
    assert main(["data", "--count", "1", "--seed", "7"]) == 0
    assert main(["nonsense"]) == main(["data", "--count", "0"]) == 2
