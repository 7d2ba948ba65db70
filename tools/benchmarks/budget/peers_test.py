"""What other tools are asked for, with stand-ins that call back as they do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest

from tools.benchmarks.budget import peers
from tools.benchmarks.budget.judge import SQNR, judge_of
from tools.benchmarks.real.networks.published import PUBLISHED
from tools.benchmarks.real.testing.red_classes import red_classes


@pytest.fixture
def asked(tmp_path: Path) -> peers.Asked:
    task = PUBLISHED["classifier"]
    path = red_classes(tmp_path) / task.model
    judge = judge_of(task, tmp_path, onnx.load(path), "even", 1)
    return peers.Asked(path, [{"images": np.zeros((1, 3, 224, 224), np.float32)}] * 2, judge, SQNR, 0.0, 3)


def test_nncf_gets_the_budget_and_its_ranking_is_told_apart(asked: peers.Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def controlled(model: Any, calib: list[Any], places: list[int], *, validation_fn: Callable[..., Any], **more: Any) -> Any:
        seen.update(more, calib=calib)
        restorer = more["advanced_accuracy_restorer_parameters"]
        assert validation_fn(model, places[:1]) == (100.0, [100.0])
        assert validation_fn(model, places) == (100.0, [100.0] * len(places))  # float
        for some in (places, *[places[: restorer.ranking_subset_size]] * 4, *[places] * restorer.max_num_iterations):
            validation_fn(model, some)
        return model

    fake = SimpleNamespace(
        quantize_with_accuracy_control=controlled,
        Dataset=list,
        ModelType=SimpleNamespace(TRANSFORMER="transformer"),
        AdvancedAccuracyRestorerParameters=SimpleNamespace,
    )
    monkeypatch.setitem(sys.modules, "nncf", cast(Any, fake))
    made = peers.nncf_controlled(asked)
    assert (made.evaluations, made.rankings) == (3, 4)
    assert (seen["max_drop"], seen["subset_size"], seen["model_type"]) == (0.0, 2, "transformer") and seen["calib"] == list(asked.feeds)


def test_quark_is_scored_on_the_images_to_choose_on_and_stopped(asked: peers.Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    class Quantizer:
        def __init__(self, config: Any) -> None:
            self.config = config

        def quantize_model(self, source: str, result: str, reader: Any) -> None:
            mixed = self.config.algo_config[1]
            count = len(list(iter(reader.get_next, None)))
            assert count == mixed.data_size and self.config.CalibDataSize == 2
            floats = [[np.zeros((1, 2), np.float32)]] * 2 + [[one["logits"]] for one in asked.judge.floats]
            wrong = [[-one[0]] for one in floats]
            distance = mixed.metric_distance_fn
            told.extend([distance(floats, wrong), distance(floats, wrong)])  # int8 as it is, then one ranking
            Path(mixed.sensitivity_cache_file).write_text("{}")
            while told[-1] > mixed.metric_threshold:
                told.append(distance(floats, wrong))
            onnx.save(onnx.load(source), result)

    def spec(**more: Any) -> SimpleNamespace:
        return SimpleNamespace(**more)

    fake = SimpleNamespace(ModelQuantizer=Quantizer, QConfig=spec, AutoMixprecisionConfig=spec, QLayerConfig=spec)
    fake.Int8Spec = fake.Int16Spec = fake.CLEConfig = spec
    monkeypatch.setitem(sys.modules, "quark", cast(Any, SimpleNamespace(onnx=fake)))
    monkeypatch.setitem(sys.modules, "quark.onnx", cast(Any, fake))
    made = peers.quark_mixed(asked)
    assert (made.evaluations, made.rankings) == (3, 1)
    assert told[0] == pytest.approx(400.0) and told[-2] == pytest.approx(400.0)


def test_what_goes_wrong_in_a_tool_is_told_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(_: peers.Asked) -> peers.Made:
        raise KeyError("no such operator")

    monkeypatch.setitem(sys.modules, "nncf", cast(Any, SimpleNamespace()))
    monkeypatch.setattr(peers, "PEERS", {"nncf": refused})
    words = ["nncf", "classifier", "score", "0", str(tmp_path / "a.onnx"), "--data", str(red_classes(tmp_path)), "--folder", str(tmp_path)]
    assert peers.main(words) != 0
    assert "KeyError: 'no such operator'" in capsys.readouterr().err and not (tmp_path / "a.onnx").exists()
