"""Pieces end the same wherever they are worked on; a worker that dies costs a try."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pytest

from converter.distribute import on_ray
from converter.distribute.testing.pieces import dot, dying, fail, sleep
from converter.distribute.workers import Workers, add_worker_flags, as_done, workers_of
from converter.errors import ConverterError, UsageError

VECTOR = {"vector": np.random.default_rng(1).random(1000, np.float32)}


def test_without_workers_pieces_are_worked_on_here_one_after_the_other() -> None:
    done = list(as_done(dot, VECTOR, range(3), Workers()))
    assert [piece for piece, _ in done] == [0, 1, 2] and {process for _, (process, _) in done} == {os.getpid()}


@pytest.mark.slow
def test_results_are_the_same_bits_on_any_number_of_processes() -> None:
    here = {piece: result for piece, (_, result) in as_done(dot, VECTOR, range(6), Workers())}
    for jobs in (1, 2):
        done = list(as_done(dot, VECTOR, range(6), Workers(jobs)))
        assert {piece: result for piece, (_, result) in done} == here
        assert os.getpid() not in {process for _, (process, _) in done}


@pytest.mark.slow
def test_a_piece_whose_worker_dies_is_tried_again_and_no_other_is(tmp_path: Path) -> None:
    done = dict(as_done(dying, tmp_path, range(6), Workers(2)))
    assert done == {piece: 2 * piece for piece in range(6)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.0", "1.0", "2.0", "3.0", "3.1", "4.0", "5.0"]


@pytest.mark.slow
def test_a_piece_that_no_worker_survives_is_named_after_three_tries(tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="3 workers died") as caught:
        list(as_done(dying, tmp_path, [99], Workers(1), name=lambda piece: f"piece {piece}"))
    assert caught.value.where == "piece 99" and len(str(caught.value).splitlines()) == 3
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
def test_an_error_of_the_work_itself_is_raised_as_it_is() -> None:
    with pytest.raises(UsageError, match="piece 1 makes no sense") as caught:
        list(as_done(fail, None, [1], Workers(1)))
    assert (caught.value.where, caught.value.hint) == ("here", "leave it out")


@pytest.mark.slow
def test_who_stops_listening_ends_the_workers() -> None:
    done = as_done(sleep, None, [0, 600, 601], Workers(2))
    _, process = next(done)
    assert _runs(process)
    begun = time.monotonic()
    done.close()
    assert time.monotonic() - begun < 60 and not _runs(process)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_work_has_a_moment_to_end_what_it_has_started(tmp_path: Path) -> None:
    """Such as a program that would run on without it."""
    done = as_done(sleep, tmp_path / "ended", [0, 600], Workers(1))
    next(done)
    time.sleep(0.5)
    done.close()
    assert (tmp_path / "ended").exists()


def flags(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_worker_flags(parser, jobs=3, pieces="cells")
    return parser.parse_args(words)


def test_flags_say_where() -> None:
    assert workers_of(flags()) == Workers(3)
    assert workers_of(flags("--jobs", "0")).alone
    with pytest.raises(UsageError, match="--jobs must be at least 0, not -1"):
        workers_of(flags("--jobs", "-1"))


@pytest.mark.parametrize(
    ("address", "what"), [("127.0.0.1:1", "cannot be joined"), ("nonsense", "no address"), ("host:", "no address"), (":7", "no address")]
)
def test_an_address_where_no_cluster_is_is_told_at_once(address: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        on_ray.check_address(address)
    assert "--ray" in caught.value.where and len(str(caught.value).splitlines()) == 3


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="Ray is not installed") as caught:
        workers_of(flags("--ray", "auto"))
    assert "bridgequant[cluster]" in caught.value.hint and caught.value.exit_code == 2
