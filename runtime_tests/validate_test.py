from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from runtime_tests.gates import check_measurable, read_gates
from runtime_tests.results import KINDS
from runtime_tests.validate import GATES, main, validation_flags


def test_the_gates_of_this_repository_can_be_read() -> None:
    gates = read_gates(sorted(GATES.glob("*.toml")))
    check_measurable(gates, KINDS)
    assert {"min_ratio_a76", "max_drop", "min_coverage"} <= {gate.name for gate in gates}


def test_gates_of_what_cannot_be_measured_are_left_out(tmp_path: Path) -> None:
    def gates(flags: list[str]) -> list[str]:
        return [Path(value).stem for flag, value in itertools.pairwise(flags) if flag == "--gates"]

    assert gates(validation_flags("m", tmp_path, data=None, limit=None, arm64=False)) == ["model"]
    everything = validation_flags("m", tmp_path, data=tmp_path, limit=10, arm64=True)
    assert gates(everything) == ["model", "accuracy", "arm64"]
    assert {"--limit", "10", "--arm64", "cortex-a53", "cortex-a76"} <= set(everything)


@pytest.mark.parametrize(
    ("flags", "what"), [(["mobilevit_xss"], "no checkpoint 'mobilevit_xss'"), (["--data", "/nowhere.zip"], "no images at this path")]
)
def test_unknown_names_and_paths_are_refused(flags: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 2
    assert what in capsys.readouterr().err
