from __future__ import annotations

import inspect

import pytest

from converter import errors
from converter.errors import ConverterError

TREE = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, ConverterError) and c is not ConverterError]


def test_every_error_has_its_own_exit_code() -> None:
    assert sorted(c.exit_code for c in TREE) == [2, 3, 4, 5, 6]
    assert ConverterError.exit_code == 1


@pytest.mark.parametrize("error", [ConverterError, *TREE])
def test_the_tree_at_the_top_is_the_real_one(error: type[ConverterError]) -> None:
    assert errors.__doc__ is not None
    line = next(line for line in errors.__doc__.splitlines() if f" {error.__name__} " in f" {line.strip()} ")
    assert f" {error.exit_code} " in line


def test_what_where_and_hint_are_three_lines() -> None:
    error = ConverterError("it broke", where="node 'a'", hint="mend it")
    assert str(error) == "error: it broke\n  at: node 'a'\n  do: mend it"


def test_missing_parts_take_no_line() -> None:
    assert str(ConverterError("it broke")) == "error: it broke"


def test_names_from_files_cannot_add_lines_or_control_the_terminal() -> None:
    text = str(ConverterError("node 'a\nb\x1b[2J' is bad", where="x\r\ny", hint="tensor '\udcff'"))
    assert len(text.splitlines()) == 3
    assert "\x1b" not in text and "\r" not in text
    text.encode()
