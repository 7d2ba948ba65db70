"""A row is one count with its prediction, failures are rows with their reasons, and what was measured is not measured again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import ConverterError, ModelError
from converter.testing.models import hybrid_model
from runtime_tests.emulation.environment import NEWEST, OLDEST, environment
from runtime_tests.emulation.setup import missing_steps
from tools.benchmarks.compare.sources import CHECKPOINTS
from tools.benchmarks.instructions import __main__ as command
from tools.benchmarks.instructions import measure, models
from tools.benchmarks.instructions.measure import Run, measure_row
from tools.benchmarks.instructions.models import NETWORKS, Ours, Workshop
from tools.benchmarks.instructions.rows import FORMS, TARGETS, Row, markdown
from tools.benchmarks.table_file import append_row, read_rows
from tools.processes import Ended


def row(form: str, *, core: str = "cortex-a76", runtime: str = NEWEST, network: str = "mobilevit_xxs", **figures: Any) -> Row:
    return Row(network, core, runtime, form, TARGETS[core], **figures)


# The table


def test_a_line_has_all_forms_and_runtimes_of_a_network_on_a_core_the_newest_first() -> None:
    rows = [
        row("float", runtime=OLDEST, counted=300.0, predicted=240.0, error=-20.0, ratio=1.0),
        row("float", core="cortex-a53", counted=200.0, predicted=202.0, error=1.0, ratio=1.0),
        row("quantize_static", core="cortex-a53", counted=250.0, ratio=1.25, remark="no prediction"),
        row("float", counted=240.0, predicted=240.0, error=0.0, ratio=1.0),
        row("ours", counted=120.04, predicted=126.0, error=4.965, ratio=0.5),
        row("quantize_static", remark="it does not run on cortex-a76"),
    ]
    head = f"| core | network | {NEWEST}: float | {NEWEST}: ours | {NEWEST}: quantize_static "
    head += f"| {OLDEST}: float | {OLDEST}: ours | {OLDEST}: quantize_static |\n| --- | --- |{' ---: |' * 6}\n"
    assert markdown(rows) == (
        f"**M instructions**, by version of ONNX Runtime\n\n{head}"
        "| cortex-a76 | mobilevit_xxs | 240.0 | 120.0 (2.00x fewer) | failed | 300.0 |  |  |\n"
        "| cortex-a53 | mobilevit_xxs | 200.0 |  | 250.0 (1.25x more) |  |  |  |\n"
        f"\n**error of the prediction**, by version of ONNX Runtime\n\n{head}"
        "| cortex-a76 | mobilevit_xxs | +0.0 % | +5.0 % |  | -20.0 % |  |  |\n"
        "| cortex-a53 | mobilevit_xxs | +1.0 % |  |  |  |  |  |\n"
        f"\n* mobilevit_xxs, cortex-a76, {NEWEST}, quantize_static: it does not run on cortex-a76\n"
        f"* mobilevit_xxs, cortex-a53, {NEWEST}, quantize_static: no prediction\n"
    )


def test_rows_come_runtime_by_runtime_with_the_target_of_the_core_and_float_first() -> None:
    found = list(command.wanted(["mobilevit_xxs"], ["cortex-a76", "cortex-a53"], ["newest", OLDEST]))
    assert [r.runtime for r in found] == [NEWEST] * 6 + [OLDEST] * 6
    assert [(r.core, r.form, r.target) for r in found[:6]] == [
        *(("cortex-a76", form, "arm64") for form in ("float", "ours", "quantize_static")),
        *(("cortex-a53", form, "arm64-v8.0") for form in ("float", "ours", "quantize_static")),
    ]


# One row


@dataclass
class Emulated:
    """Stands for the emulated machine: instructions by name of the file, or what is raised."""

    answers: dict[str, float | ConverterError]

    def __call__(self, paths: Sequence[Path], core: str, *, env: Any) -> list[Any]:
        answer = self.answers[paths[0].stem]
        if isinstance(answer, ConverterError):
            raise answer
        return [type("Found", (), {"median": answer})]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(measure, "float_model", lambda shop, network: Path("float.onnx"))
    monkeypatch.setattr(measure, "our_model", lambda shop, network, target: Ours(Path("ours.onnx"), 110e6, 190e6))
    return Run(Workshop(tmp_path, None), None)


def test_errors_are_relative_to_the_count_and_ratios_to_float(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "count", Emulated({"float": 200e6, "ours": 100e6}))
    floats = measure_row(run, row("float"), None)
    assert (floats.counted, floats.predicted, floats.ratio) == (200.0, 190.0, 1.0) and floats.error == pytest.approx(-5.0)
    ours = measure_row(run, row("ours"), floats.counted)
    assert (ours.counted, ours.predicted, ours.ratio, ours.remark) == (100.0, 110.0, 0.5, "") and ours.error == pytest.approx(10.0)
    assert measure_row(run, row("ours"), None).ratio is None, "where float was not counted"


def test_a_run_that_fails_is_a_row_with_the_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "count", Emulated({"ours": ModelError("it does not run on cortex-a76: no kernel", where="ours.onnx")}))
    assert measure_row(run, row("ours"), 200.0) == row("ours", remark="it does not run on cortex-a76: no kernel (ours.onnx)")


def test_a_count_is_kept_where_the_prediction_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Ours:
        raise ModelError("it cannot be made")

    monkeypatch.setattr(measure, "our_model", fail)
    monkeypatch.setattr(measure, "count", Emulated({"float": 200e6}))
    assert measure_row(run, row("float"), None) == row("float", counted=200.0, ratio=1.0, remark="it cannot be made")


# Models


@dataclass
class Commands:
    """Stands for processes: writes the model that a command is asked for, and remembers the command and the shape of its samples."""

    code: int = 0
    seen: list[list[str]] | None = None

    def __call__(self, words: Sequence[str], **_: Any) -> Ended:
        self.seen = [*(self.seen or []), list(words)]
        (out,) = [Path(word) for word in words[3:] if word.endswith(".onnx") and "converted" in word]
        out.write_text("model")
        if "--json" in words:
            Path(words[words.index("--json") + 1]).write_text('{"predicted": 2.5, "predicted_float": 5.0}')
        for word in words:
            if word.endswith(".npz"):
                self.seen[-1].append(str(np.load(word)["image"].shape))
        return Ended(self.code, "", "error: no memory\n", 1.0, 1.0)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "float.onnx"
    path.write_bytes(hybrid_model().SerializeToString())
    return str(path)


def test_a_model_is_made_again_only_if_something_it_depends_on_has_changed(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = Commands()
    monkeypatch.setattr(models, "run_limited", processes)
    shop = Workshop(tmp_path / "converted", None)
    shop.folder.mkdir()
    first = models.our_model(shop, tiny, "arm64")
    assert first == models.our_model(shop, tiny, "arm64") == Ours(shop.folder / "float_arm64.onnx", 2.5, 5.0)
    assert processes.seen is not None and len(processes.seen) == 1
    models.our_model(shop, tiny, "arm64-v8.0")
    Path(tiny).write_bytes(hybrid_model(seed=1).SerializeToString())
    models.our_model(shop, tiny, "arm64")
    assert [words[words.index("--target") + 1] for words in processes.seen] == ["arm64", "arm64-v8.0", "arm64"]


def test_a_command_that_fails_leaves_nothing_that_passes_for_its_model(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Commands(code=1)
    monkeypatch.setattr(models, "run_limited", processes)
    shop = Workshop(tmp_path / "converted", None)
    shop.folder.mkdir()
    for _ in range(2):
        with pytest.raises(ModelError, match="error: no memory"):
            models.our_model(shop, tiny, "arm64")
    assert processes.seen is not None and len(processes.seen) == 2


def test_the_other_tool_gets_as_many_samples_as_a_conversion(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Commands()
    monkeypatch.setattr(models, "run_limited", processes)
    shop = Workshop(tmp_path / "converted", None)
    shop.folder.mkdir()
    assert models.static_model(shop, tiny) == shop.folder / "float_quantize_static.onnx"
    assert processes.seen is not None and processes.seen[0][-1].startswith("(32, 3, ")
    assert not list(shop.folder.glob("*.npz"))


# The command


def test_only_missing_rows_are_measured_beside_the_float_count_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, measured = tmp_path / "counts.csv", []

    def measured_row(_: Run, wanted: Row, floats: float | None) -> Row:
        measured.append((wanted.form, floats))
        return replace(wanted, counted=50.0, ratio=0.5)

    monkeypatch.setattr(command, "measure_row", measured_row)
    monkeypatch.setattr(command, "require", lambda env: None)
    append_row(table, row("float", counted=100.0, ratio=1.0))
    words = ["--out", str(table), "--models", str(tmp_path), "--networks", "mobilevit_xxs", "--cores", "cortex-a76", "--runtimes", "newest"]
    assert command.main(words) == command.main(words) == command.main(["--out", str(table), "--table"]) == 0
    assert measured == [("ours", 100.0), ("quantize_static", 100.0)]
    assert [r.form for r in read_rows(table, Row)] == list(FORMS)
    line = "| cortex-a76 | mobilevit_xxs | 100.0 | 50.0 (2.00x fewer) | 50.0 (2.00x fewer) |"
    assert capsys.readouterr().out.count(line) == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--networks", "mobilevit_xxl"], "there is no network 'mobilevit_xxl'"),
        (["--calib", "missing.zip"], "there are no such images"),
        (["--runtimes", "1.20"], "there is no emulated ONNX Runtime '1.20'"),
    ],
)
def test_what_does_not_exist_is_told_before_anything_is_made(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "build" / "counts.csv"
    assert command.main([*words, "--out", str(out), "--models", str(out.parent)]) == 2
    assert expected in capsys.readouterr().err and not out.parent.exists()


def test_trained_weights_are_those_of_checkpoints_that_are_there() -> None:
    assert all((models._ROOT / CHECKPOINTS / f"{name}.safetensors").exists() for name, how in NETWORKS.items() if how.trained)


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_steps(environment())), reason="the ARM64 emulation is not set up (make arm64)")
def test_a_tiny_network_from_end_to_end(tiny: str, tmp_path: Path) -> None:
    out = tmp_path / "counts.csv"
    words = ["--networks", tiny, "--cores", "cortex-a53", "--runtimes", "newest", "--out", str(out), "--models", str(tmp_path / "models")]
    assert command.main(words) == 0
    floats, ours, static = read_rows(out, Row)
    assert [r.form for r in (floats, ours, static)] == list(FORMS) and {r.remark for r in (floats, ours, static)} == {""}
    assert {r.target for r in (floats, ours, static)} == {"arm64-v8.0"} and floats.ratio == 1.0
    for each in (floats, ours, static):
        assert each.counted is not None and each.predicted is not None and each.error is not None and floats.counted is not None
        assert each.ratio == pytest.approx(each.counted / floats.counted, abs=2e-4)
        assert each.error == pytest.approx(100 * (each.predicted / each.counted - 1), abs=0.02)
