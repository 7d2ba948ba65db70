from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import UsageError
from runtime_tests.gates import GATES, Gate, check_fine_enough, check_measurable, miss, read_gates
from runtime_tests.quality import Accuracy
from runtime_tests.results import KINDS


def write(folder: Path, text: str, name: str = "gates.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def stored(folder: Path, **figures: float) -> None:
    (folder / "previous.json").write_text(json.dumps({"figures": figures}))


def test_each_figure_has_one_gate_on_the_side_where_it_is_bad() -> None:
    assert {"min_ratio_a76", "max_drop", "min_parity_db", "max_instructions_max_sme_off", "max_memory_mb"} <= set(GATES)
    assert len(GATES) == len(KINDS)
    assert "max_coverage" not in GATES


def test_limits_are_read_and_later_files_win(tmp_path: Path) -> None:
    one = write(tmp_path, "max_drop = 0.5\nmin_sqnr_db = 20", "one.toml")
    two = write(tmp_path, "min_sqnr_db = 25", "two.toml")
    gates = read_gates([one, two])
    assert [(g.name, g.figure, g.limit) for g in gates] == [("max_drop", "drop", 0.5), ("min_sqnr_db", "sqnr_db", 25.0)]


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("min_covrage = 90", "no gate 'min_covrage'", "min_coverage"),
        ("min_drop = 1", "no gate 'min_drop'", "max_drop"),
        ("min_coverage = 0.9", "looks like a share", "percent: 90"),
        ("min_coverage = '90'", "'90' is not a number", "without quotes"),
        ("min_coverage = nan", "nan is not a number", "give one"),
        ("min_coverage", "not TOML", "lines like"),
        ("[baseline]\nfiles = 'a.json'", "names no file", "previous.json"),
        ("[baseline]\nfile = 'previous.json'\ntolerence = 0.1", "no 'tolerence'", "did you mean tolerance"),
        ("[baseline]\nfile = 'previous.json'\ntolerance = 5", "makes no sense", "0.01 is one percent"),
        ("[baseline]\nfile = 'other.json'", "cannot be read", "--json"),
        ("[baseline]\nfile = 'previous.json'\nfigures = []", "no figure to compare with", "figures = [...]"),
        ("[baseline]\nfile = 'gates.toml'", "not the JSON of a validation", "--json"),
        ("[baseline]\nfile = 'previous.json'\nfigures = ['top']", "no figure 'top'", "did you mean top1"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_do(text: str, what: str, hint: str, tmp_path: Path) -> None:
    stored(tmp_path, top1=80.0)
    with pytest.raises(UsageError, match=what) as caught:
        read_gates([write(tmp_path, text)])
    assert hint in caught.value.hint
    assert "gates.toml" in caught.value.where or "other.json" in caught.value.where


def test_a_baseline_allows_a_share_of_each_steady_figure(tmp_path: Path) -> None:
    stored(tmp_path, top1=80.0, instructions_a76=10.0, latency_ratio=1.5, drop=0.1)
    path = write(tmp_path, "[baseline]\nfile = 'previous.json'\ntolerance = 0.01")
    assert {g.figure: g.limit for g in read_gates([path])} == pytest.approx({"top1": 79.2, "instructions_a76": 10.1})
    path = write(tmp_path, "[baseline]\nfile = 'previous.json'\nfigures = ['latency_ratio']")
    (gate,) = read_gates([path])
    assert (gate.name, gate.limit) == ("baseline latency_ratio", 1.5)


@given(st.sampled_from(sorted(GATES)), st.floats(-1e3, 1e3), st.floats(1e-3, 10))
def test_a_limit_may_be_reached_and_not_crossed(name: str, limit: float, step: float) -> None:
    gate = Gate(name, GATES[name], limit, "", Path("g.toml"))
    worse = limit - step if name.startswith("min") else limit + step
    assert miss(gate, limit) == miss(gate, 2 * limit - worse) == ""
    assert f"{gate.figure} is {worse:.5g}" in miss(gate, worse) and f"{limit:.5g}" in miss(gate, worse)


def test_a_gate_on_what_is_not_measured_says_what_measures_it(tmp_path: Path) -> None:
    gates = read_gates([write(tmp_path, "min_ratio_a53 = 1.1")])
    check_measurable(gates, {"ratio_a53"})
    with pytest.raises(UsageError, match="'ratio_a53' is not measured") as caught:
        check_measurable(gates, {"ratio_a76"})
    assert "--arm64 --core cortex-a53" in caught.value.hint


@given(st.integers(1, 2000), st.data())
def test_a_limit_on_the_drop_may_be_reached(images: int, data: st.DataObject) -> None:
    """One, two, three images fewer are right, and the limit is just that: shares do not subtract exactly."""
    right = data.draw(st.integers(0, images))
    lost = data.draw(st.integers(0, min(3, right)))
    accuracy = Accuracy(images, 100.0 * right / images, 100.0 * (right - lost) / images)
    gate = Gate("max_drop", "drop", 100.0 * lost / images, "", Path())
    assert not miss(gate, accuracy.drop)
    check_fine_enough([gate], images)


@pytest.mark.parametrize(("right", "lost"), [(771, 1), (834, 5), (563, 1)])
def test_a_drop_of_as_many_images_as_the_limit_says_is_kept(right: int, lost: int) -> None:
    accuracy = Accuracy(1000, 100.0 * right / 1000, 100.0 * (right - lost) / 1000)
    assert not miss(Gate("max_drop", "drop", lost / 10, "", Path()), accuracy.drop)


def test_too_few_images_for_a_limit_are_named() -> None:
    gate = Gate("max_drop", "drop", 0.3, "", Path("gates.toml"))
    with pytest.raises(UsageError, match=r"333 images cannot show a drop of 0.3 points: one image is 0.3003"):
        check_fine_enough([gate], 333)
    check_fine_enough([gate], 334)
