from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from converter.errors import BoundMissedError, ConverterError, VerificationError
from runtime_tests import validate as validation
from runtime_tests.gates import check_measurable, read_gates
from runtime_tests.results import KINDS
from runtime_tests.validate import CHECKPOINTS, GATES, main, raise_failed, validation_flags


def test_the_gates_of_this_repository_can_be_read() -> None:
    gates = read_gates(sorted(GATES.rglob("*.toml")))
    check_measurable(gates, KINDS)
    assert {"min_ratio_a76", "max_drop", "min_coverage"} <= {gate.name for gate in gates}
    assert {folder.name for folder in GATES.iterdir() if folder.is_dir()} <= {path.stem for path in CHECKPOINTS.glob("*.safetensors")}


def test_a_checkpoint_may_have_limits_of_its_own(tmp_path: Path) -> None:
    flags = validation_flags("mobile_former_26m", tmp_path, data=None, limit=None, arm64=True)
    files = [Path(value) for flag, value in itertools.pairwise(flags) if flag == "--gates"]
    limits = {gate.name: gate.limit for gate in read_gates(files)}
    general = {gate.name: gate.limit for gate in read_gates([GATES / "model.toml", GATES / "arm64.toml"])}
    assert set(limits) == set(general)
    assert limits["min_coverage"] < general["min_coverage"] and limits["min_sqnr_db"] == general["min_sqnr_db"]


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


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ({"a": 0, "b": 6}, BoundMissedError),
        ({"a": 6, "b": 5}, VerificationError),
        ({"a": 1, "b": 6}, ConverterError),
    ],
)
def test_the_gravest_failure_gives_the_exit_code(codes: dict[str, int], kind: type[ConverterError], tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="not all checkpoints passed: ") as caught:
        raise_failed(codes, tmp_path)
    assert type(caught.value) is kind
    raise_failed({"a": 0}, tmp_path)


def test_one_that_fails_does_not_keep_the_others_from_being_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def convert(name: str, folder: Path, calib: Path | None) -> None:
        tried.append(name)
        if name == "mobilevit_xxs":
            raise VerificationError("broken", where=name, hint="none")

    monkeypatch.setattr(validation, "_convert", convert)
    monkeypatch.setattr(validation, "validate", lambda flags: 6)
    assert main(["mobilevit_xxs", "mobilevitv2_050", "--out", str(tmp_path)]) == 5
    assert tried == ["mobilevit_xxs", "mobilevitv2_050"]


def test_an_interruption_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def convert(name: str, folder: Path, calib: Path | None) -> None:
        tried.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(validation, "_convert", convert)
    assert main(["mobilevit_xxs", "mobilevitv2_050", "--out", str(tmp_path)]) == 130
    assert tried == ["mobilevit_xxs"]
