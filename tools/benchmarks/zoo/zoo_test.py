"""The table of the zoo is fair to all ways of export, its networks are lively, and a row says how its conversion ended."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from converter.errors import UsageError
from converter.testing.models import hybrid_model
from tools.benchmarks.table_file import append_row, read_rows
from tools.benchmarks.zoo import __main__ as command
from tools.benchmarks.zoo import export, judge, networks, rows
from tools.benchmarks.zoo.lively import enliven
from tools.benchmarks.zoo.networks import ALL_FOUR, COMBINATIONS, NETWORKS, Entry
from tools.benchmarks.zoo.rows import Row, Run, markdown, measure_row, wanted
from tools.processes import Ended

BOTH = ("torchscript", "dynamo")


class Tiny(nn.Module):
    """A convolution, a branch that is switched off, a token of zeros, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.branch = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Linear(8, 8)
        self.gamma = nn.Parameter(torch.full((8,), 1e-5))
        self.token = nn.Parameter(torch.zeros(1, 4, 8))
        self.head = nn.Linear(8, 5)
        self.mixer_weight = nn.Parameter(torch.full((8, 8), 1e-3))
        nn.init.zeros_(self.branch.weight)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores [N, 5]."""
        x = self.norm(self.conv(image)).mean((2, 3))
        scores: torch.Tensor = self.head(x + self.gamma * self.branch(x) @ self.mixer_weight + self.token.mean(1))
        return scores


TINY = Entry("tiny@32", 32, COMBINATIONS[0], Tiny)


# The table


def test_names_are_unique_and_all_ways_of_export_equally_frequent() -> None:
    assert len({entry.name for entry in NETWORKS}) == len(NETWORKS) >= 45
    counts = Counter(entry.how for entry in NETWORKS)
    assert set(counts) == set(COMBINATIONS) and max(counts.values()) - min(counts.values()) <= 1


def test_a_few_networks_are_exported_in_all_ways_and_flags_choose_some() -> None:
    everything = wanted(NETWORKS, "", BOTH)
    assert len(everything) == len(NETWORKS) + 3 * len(ALL_FOUR)
    assert [how for _, how in wanted(NETWORKS, ALL_FOUR[0], BOTH)] == list(COMBINATIONS)
    assert {how.exporter for _, how in wanted(NETWORKS, "", ["dynamo"])} == {"dynamo"}


def test_a_missing_library_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match="transformers is not installed") as caught:
        next(e for e in NETWORKS if "Yolos" in e.name).make()
    assert "zoo" in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("entry", NETWORKS, ids=lambda entry: entry.name)
def test_every_network_answers_differently_to_different_images(entry: Entry) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    module, images = entry.make(), torch.randn(2, 3, entry.size, entry.size, generator=torch.Generator().manual_seed(0))
    enliven(module, images)
    with torch.no_grad():
        answer = module(images)
    first = answer[0] if isinstance(answer, tuple) else answer
    assert len(entry.outputs) == (len(answer) if isinstance(answer, tuple) else 1)
    assert float((first[0] - first[1]).std()) > 0.01 * float(first.std()) > 0


# Lively weights


def test_branches_tokens_and_statistics_matter_afterwards() -> None:
    torch.manual_seed(0)
    module, images = Tiny(), torch.randn(8, 3, 32, 32) + 2
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    enliven(module, images)
    after = {name: parameter.detach() for name, parameter in module.named_parameters()}
    assert float(after["gamma"].min()) >= 0.3 and float(after["token"].std()) > 0.2
    for name in ("branch.weight", "mixer_weight"):
        assert float(after[name].std()) == pytest.approx(8**-0.5, rel=0.3)
    assert torch.equal(after["conv.weight"], before["conv.weight"]), "ordinary weights stay"
    assert not module.training and not module.norm.training
    with torch.no_grad():
        seen = module.norm(module.conv(images))
    assert float(seen.mean()) == pytest.approx(0.0, abs=0.3) and float(seen.std()) == pytest.approx(1.0, abs=0.3)


def test_the_same_entry_gives_the_same_bytes() -> None:
    first, again = (export.export_entry(TINY, COMBINATIONS[1]) for _ in range(2))
    assert first == again
    model = onnx.load_from_string(first)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


# Rows


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path, None, 4, 60.0, 4000.0)


def test_an_export_that_fails_is_a_row_and_nothing_is_converted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answers(monkeypatch, Ended(3, "", "error: no such operator\n  do: give up\n", 1.0, 100.0))
    row = measure_row(run, TINY, COMBINATIONS[2])
    assert (row.key, row.exit, row.reason) == (("tiny@32", "dynamo", "1"), "export", "error: no such operator")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("ended", "exit_text"),
    [
        (Ended(5, "", "error: parity\n", 2.0, 9.0), "5"),
        (Ended(None, "", "", 60.0, 9.0), "time"),
        (Ended(-9, "", "", 2.0, 9.0), "ended by SIGKILL"),
    ],
)
def test_a_conversion_that_fails_is_judged_against_the_stock_tool_all_the_same(
    ended: Ended, exit_text: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = '{"sqnr_db": null, "moved_db": null, "stock_db": 20.0, "stock_failure": "", "blocks": 1, "layers": 9, "layers_in_blocks": 3}'
    answers(monkeypatch, Ended(0, "", "", 1.0, 1.0), ended, Ended(0, judged, "", 1.0, 1.0))
    row = measure_row(run, TINY, COMBINATIONS[0])
    assert (row.exit, row.seconds, row.megabytes, row.stock_db, row.blocks) == (exit_text, ended.seconds, 9.0, 20.0, 1)
    assert row.reason


def answers(monkeypatch: pytest.MonkeyPatch, *ended: Ended) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def answer(*words: Any, **_: Any) -> Ended:
        calls.append(words)
        return ended[len(calls) - 1]

    monkeypatch.setattr(rows, "run_limited", answer)
    return calls


def test_low_parity_is_explained_and_a_lead_of_the_stock_tool_told() -> None:
    found = '{"sqnr_db": 12.0, "moved_db": %s, "stock_db": 13.0, "stock_failure": "", "blocks": 1, "layers": 9, "layers_in_blocks": 3}'
    row = Row("a", "dynamo", "1", exit="0", parity_db=24.0)
    behind, chaotic, wrong = (rows._judged(row, Ended(0, found % moved, "", 1.0, 1.0)).reason for moved in (20.0, 11.0, 30.0))
    assert behind == "parity: chaotic: one moved code gives 20 dB; behind the stock tool"
    assert chaotic.endswith("behind the stock tool: chaotic: one moved code gives 11 dB")
    assert wrong.startswith("parity: the runtime computes something else")


def test_both_models_are_judged_on_the_same_images(tmp_path: Path) -> None:
    path = tmp_path / "float.onnx"
    path.write_bytes(hybrid_model().SerializeToString())
    found = judge.judge(path, path, None, 4)
    assert found.sqnr_db == 200.0 and found.stock_db is not None and 10 < found.stock_db < 60
    assert (found.stock_failure, found.blocks) == ("", 1) and 0 < found.layers_in_blocks < found.layers
    assert judge.judge(path, tmp_path / "missing.onnx", None, 4).sqnr_db is None


# The command


def test_rows_are_kept_and_only_missing_ones_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, measured = tmp_path / "zoo.csv", []

    def measure(_: Run, entry: Entry, how: networks.How) -> Row:
        measured.append(entry.name)
        return Row(entry.name, how.exporter, "open" if how.open_batch else "1", "0", 30.0, 20.0, layers=9, layers_in_blocks=3)

    tiny = (TINY, Entry("other@32", 32, COMBINATIONS[3], Tiny))
    monkeypatch.setattr(command, "NETWORKS", tiny)
    monkeypatch.setattr(rows, "NETWORKS", tiny)
    monkeypatch.setattr(rows, "measure_row", measure)
    append_row(table, Row("tiny@32", "torchscript", "1", "5", reason="a | b"))
    words = ["--out", str(table), "--models", str(tmp_path)]
    assert command.main(words) == command.main(words) == command.main([*words, "--table"]) == 0
    assert measured == ["other@32"]
    assert capsys.readouterr().out.count("1 of 2 converted and verified.") == 3
    assert "| tiny@32 | torchscript | 1 | 5 |" in markdown(read_rows(table, Row)) and "a / b" in markdown(read_rows(table, Row))


def test_numbers_that_are_missing_stay_so_in_the_file(tmp_path: Path) -> None:
    row = Row("a", "dynamo", "open", "0", sqnr_db=12.3456, tree="abc")
    append_row(tmp_path / "zoo.csv", row)
    assert read_rows(tmp_path / "zoo.csv", Row) == [row]


@pytest.mark.slow
def test_a_row_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    entry = next(e for e in NETWORKS if e.name == "mobilevit_xxs@128")
    # what a row tells does not hang on the method, and this one does not search
    run = Run(tmp_path, None, 4, 600.0, 8000.0, flags=("--method", "mse"))
    row = measure_row(run, entry, COMBINATIONS[0])
    assert (row.exit, row.blocks) == ("0", 3)
    figures: Mapping[str, Any] = vars(row)
    assert all(figures[name] for name in ("sqnr_db", "stock_db", "parity_db", "coverage", "ratio", "seconds", "megabytes", "tree"))
