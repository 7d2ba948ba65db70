"""Work is shared out without changing what comes out, or in which order."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from converter.torch_backend.workers import in_order, one_thread_each, worker_count


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_results_come_in_the_order_of_the_items_however_long_each_takes(workers: int) -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0.0)
        return number * number

    assert list(in_order(slow_first, range(6), workers)) == [0, 1, 4, 9, 16, 25]


def test_several_items_run_at_once() -> None:
    together = threading.Barrier(2, timeout=10)
    assert sorted(in_order(lambda _: together.wait(), range(2), 2)) == [0, 1]


def test_what_an_item_raises_reaches_the_caller() -> None:
    def fail(number: int) -> int:
        if number == 1:
            raise ValueError("one")
        return number

    for workers in (1, 2):
        results = in_order(fail, range(3), workers)
        assert next(results) == 0
        with pytest.raises(ValueError, match="one"):
            next(results)


def test_operations_keep_to_one_thread_only_inside_and_in_workers_too() -> None:
    before = torch.get_num_threads()
    with one_thread_each():
        assert torch.get_num_threads() == 1
        assert set(in_order(lambda _: torch.get_num_threads(), range(4), 2)) == {1}
    assert torch.get_num_threads() == before


def test_no_number_means_as_many_as_there_are() -> None:
    assert worker_count(3) == 3
    assert worker_count(0) >= 1
