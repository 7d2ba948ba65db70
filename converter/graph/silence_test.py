from __future__ import annotations

import os
import subprocess
import sys

import pytest

from converter.graph.silence import silence


def chatter(text: str) -> None:
    """Print as Python does, and as a library in C++ does."""
    print(text)
    print(text, file=sys.stderr)
    for descriptor in (1, 2):
        os.write(descriptor, text.encode())


def test_nothing_is_printed_meanwhile_and_everything_before_and_after(capfd: pytest.CaptureFixture[str]) -> None:
    chatter("before ")
    with silence():
        chatter("meanwhile ")
    chatter("after")
    out, err = capfd.readouterr()
    for text in (out, err):
        assert text.count("before") == text.count("after") == 2 and "meanwhile" not in text


def test_errors_pass_and_end_the_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="the reason"), silence():
        raise ValueError("the reason")
    chatter("after")
    assert [text.count("after") for text in capfd.readouterr()] == [2, 2]


def test_no_descriptor_is_left_open() -> None:
    with silence():
        pass
    lowest = os.dup(0)
    os.close(lowest)
    for _ in range(20):
        with silence():
            pass
    again = os.dup(0)
    os.close(again)
    assert again == lowest


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_is_no_hindrance(closed: str) -> None:
    open_one = 2 if closed == ">&-" else 1
    code = f"from converter.graph.silence import silence\nwith silence(): pass\nimport os; os.write({open_one}, b'done')"
    done = subprocess.run(["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == "done"
