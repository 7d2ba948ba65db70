"""Commands on a Ray cluster of two workers give what they give in one process, though a worker is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from converter.distribute import on_ray
from converter.distribute.testing.cluster import ray_cluster
from converter.distribute.testing.pieces import dot, dying, fail
from converter.distribute.workers import Workers, as_done
from converter.errors import ConverterError, UsageError
from converter.testing.models import hybrid_model
from models import evaluate
from tools.benchmarks.compare import __main__ as compare
from tools.benchmarks.compare import measure as measuring
from tools.benchmarks.compare.cells import Row
from tools.benchmarks.compare.testing.small_matrix import pictures, small_matrix
from tools.benchmarks.table_file import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install '.[cluster]'")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster that this process has joined, as joining takes seconds."""
    import ray

    with ray_cluster(2) as address:
        assert on_ray._joined(ray, address)
        yield address
        ray.shutdown()


def test_results_are_the_same_bits_as_in_one_process(cluster: str) -> None:
    state = {"vector": np.random.default_rng(1).random(1000, np.float32)}
    here, there = (
        {piece: result for piece, (_, result) in as_done(dot, state, range(6), workers)} for workers in (Workers(), Workers(ray=cluster))
    )
    assert there == here


def test_a_piece_whose_worker_dies_is_tried_again(cluster: str, tmp_path: Path) -> None:
    assert dict(as_done(dying, tmp_path, range(6), Workers(ray=cluster))) == {piece: 2 * piece for piece in range(6)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.0", "1.0", "2.0", "3.0", "3.1", "4.0", "5.0"]


def test_a_piece_that_no_worker_survives_is_named(cluster: str, tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="3 workers died") as caught:
        list(as_done(dying, tmp_path, [99], Workers(ray=cluster), name=lambda piece: f"piece {piece}"))
    assert caught.value.where == "piece 99" and len(list(tmp_path.iterdir())) == 3


def test_an_error_of_the_work_itself_is_raised_as_it_is(cluster: str) -> None:
    with pytest.raises(UsageError, match="piece 1 makes no sense") as caught:
        list(as_done(fail, None, [1], Workers(ray=cluster)))
    assert (caught.value.where, caught.value.hint) == ("here", "leave it out")


def test_a_machine_that_lacks_a_file_or_has_another_gets_a_copy(cluster: str, tmp_path: Path) -> None:
    import ray

    missing, other, same = (tmp_path / "folder" / name for name in ("missing", "other", "same"))
    missing.parent.mkdir()
    for path in (missing, other, same):
        path.write_bytes(b"content")
    copies = {str(path): (on_ray._stamp(path), ray.put(path.read_bytes())) for path in (missing, other, same)}
    missing.unlink()
    other.write_bytes(b"something else")
    kept = same.stat().st_ino
    shared = ray.put((dot, {"vector": np.zeros(1000, np.float32)}, copies))
    ray.get(ray.remote(on_ray._work_there).remote(shared, 0))
    assert missing.read_bytes() == other.read_bytes() == b"content"
    assert [on_ray._stamp(Path(path)) for path in copies] == [stamp for stamp, _ in copies.values()]
    assert same.stat().st_ino == kept and len(list(missing.parent.iterdir())) == 3


def test_a_matrix_is_the_same_rows_and_models(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_LATENCY_SECONDS", 0.01)
    found: list[tuple[dict[str, Row], dict[str, bytes]]] = []
    for name, where in (("here", ["--jobs", "0"]), ("there", ["--ray", cluster])):
        folder = tmp_path / name
        folder.mkdir()
        assert compare.main(small_matrix(folder, "--methods", "minmax", *where)) == 0
        rows = {row.method: replace(row, model="", seconds=0.0, latency=0.0) for row in read_rows(folder / "out/results.csv", Row)}
        found.append((rows, {path.name: path.read_bytes() for path in (folder / "out/models").glob("*.onnx")}))
    assert found[0] == found[1]
    assert set(found[0][0]) == {"float", "minmax"} and set(found[0][1]) == {"small_minmax_W8A8.onnx"}
    assert not any(row.failure for row in found[0][0].values())


def test_an_evaluation_counts_the_same(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_SHARD", 8)
    onnx.save(hybrid_model(metadata={"bridgequant.preprocess": "unit;resize=stretch"}), tmp_path / "model.onnx")
    words = [str(tmp_path / "model.onnx"), "--data", str(pictures(tmp_path / "data.zip", 40)), "--batch", "4"]
    reports: list[dict[str, Any]] = []
    for where in ([], ["--ray", cluster]):
        assert evaluate.main([*words, "--json", str(tmp_path / "result.json"), *where]) == 0
        reports.append(json.loads((tmp_path / "result.json").read_text()))
        del reports[-1]["seconds"]
    assert reports[0] == reports[1] and reports[0]["images"] == 40
