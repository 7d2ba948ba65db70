from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from converter.errors import BoundMissedError, VerificationError
from runtime_tests.check_results import CheckResult, junit_xml, raise_failures

KEPT = CheckResult("gate", "min_coverage", detail="coverage is 99")
MISSED = CheckResult("gate", "max_drop", failure="drop is 0.9, the limit is at most 0.5")
UNSOUND = CheckResult("check", "confinement", 1.25, failure="codes leave their grid: a<b>\x07&c")
SKIPPED = CheckResult("check", "arm64", skipped="give --arm64")


def test_junit_has_a_case_for_each_outcome() -> None:
    root = ElementTree.fromstring(junit_xml("model.onnx", [KEPT, MISSED, UNSOUND, SKIPPED]))
    (suite,) = root
    assert {key: suite.attrib[key] for key in ("name", "tests", "failures", "skipped", "time")} == {
        "name": "model.onnx", "tests": "4", "failures": "2", "skipped": "1", "time": "1.250",
    }  # fmt: skip
    cases = {case.attrib["name"]: case for case in suite}
    failure = cases["max_drop"].find("failure")
    assert failure is not None and failure.attrib["message"] == MISSED.failure == failure.text
    assert cases["max_drop"].attrib["classname"] == "runtime_tests.gate"
    assert cases["min_coverage"].find("failure") is None
    assert cases["arm64"].find("skipped") is not None
    odd = cases["confinement"].find("failure")
    assert odd is not None and odd.text == "codes leave their grid: a<b> &c"


def test_an_unsound_model_comes_before_a_missed_gate() -> None:
    raise_failures([KEPT, SKIPPED], "m")
    with pytest.raises(BoundMissedError, match="a gate was missed: drop is") as missed:
        raise_failures([KEPT, MISSED], "m")
    assert missed.value.exit_code == 6
    with pytest.raises(VerificationError, match="codes leave") as unsound:
        raise_failures([MISSED, UNSOUND], "m")
    assert unsound.value.exit_code == 5
