"""How commands end, whatever goes wrong."""

from __future__ import annotations

import pytest

from converter.cli.command import exit_code
from converter.errors import CalibrationError


@pytest.mark.parametrize(
    ("error", "code", "what"),
    [
        (CalibrationError("no images", where="here", hint="give some"), 4, "error: no images"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModuleNotFoundError("No module named 'timm'", name="timm"), 2, "error: the package 'timm' is not installed for this Python"),
        (ValueError("two\nlines"), 1, "error: unexpected ValueError: two"),
        (MemoryError(), 1, "error: unexpected MemoryError"),
    ],
)
def test_an_error_is_three_lines_and_a_code(error: BaseException, code: int, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise error

    assert exit_code(command) == code
    printed = capsys.readouterr()
    lines = printed.err.strip().splitlines()
    assert printed.out == "" and len(lines) <= 3 and lines[0].startswith(what)
    if code == 1:
        assert "command_test.py:" in lines[1]


@pytest.mark.parametrize(
    ("package", "advice"),
    [
        ("timm.models", "pip install 'bridgequant[models]'"),
        ("matplotlib", "pip install 'bridgequant[plots]'"),
        ("nncf", "pip install nncf"),
    ],
)
def test_a_package_that_is_missed_late_is_named_with_what_installs_it(
    package: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Networks load their package when they are made, not with the command."""

    def command() -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    assert exit_code(command) == 2 and advice in capsys.readouterr().err


def test_no_error_is_zero() -> None:
    assert exit_code(lambda: None) == 0
