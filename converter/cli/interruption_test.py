from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from converter.cli.interruption import Interruption

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def heeded_signals() -> Iterator[None]:
    """Heed all of them even where pytest was started by ``nohup``, which ignores one."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_and_the_handler_is_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        signal.raise_signal(number)
    assert interruption.received == 1
    assert signal.getsignal(number) is before


def test_the_second_signal_does_not_break_the_tidying_up() -> None:
    tidied = []
    with Interruption() as interruption:
        with pytest.raises(KeyboardInterrupt):
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(signal.SIGINT)
                tidied.append(True)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert tidied and interruption.received == 3


def test_a_swallowed_interruption_is_raised_again() -> None:
    with Interruption() as interruption:
        interruption.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            interruption.check()


def test_while_libraries_are_loaded_interruptions_wait() -> None:
    passed = []
    with Interruption() as interruption, pytest.raises(KeyboardInterrupt):
        with interruption.deferred():
            signal.raise_signal(signal.SIGINT)
            passed.append(True)
        passed.append(False)
    assert passed == [True]


def test_or_the_process_leaves_at_once() -> None:
    left = []
    with Interruption(lambda: left.append(True)) as interruption, pytest.raises(KeyboardInterrupt):
        with interruption.deferred():
            signal.raise_signal(signal.SIGTERM)
            assert left
        pytest.fail("a process that goes on after all is interrupted")


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGHUP)
        assert interruption.received == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_nothing_is_touched() -> None:
    received = []

    def run() -> None:
        with Interruption() as interruption:
            received.append(interruption.received)

    before = [signal.getsignal(s) for s in SIGNALS]
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert received == [0] and [signal.getsignal(s) for s in SIGNALS] == before
