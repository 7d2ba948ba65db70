from __future__ import annotations

import io
import sys
import time

import pytest

from converter.cli.terminal import LONG, watch
from converter.progress import SILENT


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with watch(quiet=True) as progress:
        assert progress is SILENT
        progress.stage("observe")
        progress.step(1, 2)
        progress.note("x")
    assert capsys.readouterr() == ("", "")


def test_short_stages_are_not_told_and_notes_come_last(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with watch(quiet=False) as progress:
        progress.note("mind this")
        for name, seconds in (("load", 0.5), ("observe", LONG + 1), ("plan", 0.1), ("verify", LONG)):
            progress.stage(name)
            progress.step(1, 2)
            clock.now += seconds
    assert capsys.readouterr() == ("", "[   3.5 s] observe took 3.0 s\n[   5.6 s] verify took 2.0 s\nnote: mind this\n")


def test_a_failure_is_not_buried_under_chatter(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError), watch(quiet=False) as progress:
        progress.note("mind this")
        for name in ("start", "load", "canonicalise", "observe"):
            progress.stage(name)
            clock.now += 60
        raise ValueError
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with watch(quiet=False) as progress:
        progress.stage("observe")
        progress.step(3, 32)
        time.sleep(0.3)  # bars are drawn ten times a second
        progress.note("folder [red]x[/blue]")
        progress.stage("[/plan]")
    text = stream.getvalue()
    assert "observe" in text and "3/32" in text and "[/plan]" in text
    assert "note: folder [red]x[/blue]" in text


def test_parts_of_a_stage_and_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with watch(quiet=False) as progress:
        progress.stage("plan")
        progress.part("search", 0.5, 0.9)
        progress.step(3, 6)
        time.sleep(0.3)
        progress.stage("verify")
        time.sleep(0.3)
    text = stream.getvalue()
    assert "plan: search" in text and "3/6" in text
    assert "0:00:00 left" in text, "0.7 of the stage took 0.3 s"
    assert "left" not in text[text.rindex("verify") :], "nothing is known of the next stage"


def test_a_failure_shows_the_cursor_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(ValueError), watch(quiet=False) as progress:
        progress.stage("load")
        raise ValueError
    text = stream.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_no_stderr_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with watch(quiet=False) as progress:
        assert progress is SILENT
