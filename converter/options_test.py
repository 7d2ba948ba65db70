from __future__ import annotations

from typing import Any

import pytest

from converter.errors import UsageError
from converter.methods.names import DEFAULT_METHOD
from converter.options import Options, parse_bits
from converter.planning.registry import METHODS


def test_defaults() -> None:
    options = Options()
    assert options.method == DEFAULT_METHOD and options.bits == "W8A8" and options.samples == 32 and options.seed == 0


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_can_be_chosen(method: str) -> None:
    assert Options(method=method).method == method


@pytest.mark.parametrize(("text", "bits"), [("W8A8", (8, 8)), ("w4a8", (4, 8)), ("W8a5", (8, 5)), ("W6A7", (6, 7))])
def test_bits_are_parsed(text: str, bits: tuple[int, int]) -> None:
    assert parse_bits(text) == bits


@pytest.mark.parametrize("text", ["", "8", "W8", "W3A8", "W8A9", "W16A16", "W8A8 ", "int8", "W٨A٨"])
def test_bits_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="not a bit width"):
        parse_bits(text)


@pytest.mark.parametrize("weights", range(4, 9))
@pytest.mark.parametrize("activations", range(4, 9))
def test_every_pair_of_widths_can_be_chosen(weights: int, activations: int) -> None:
    assert Options(bits=f"w{weights}a{activations}").bits == f"W{weights}A{activations}"


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 0},
        {"samples": -1},
        {"threads": -1},
        {"threads": 100_000},
        {"seed": -1},
        {"seed": 2**40},
        {"min_sqnr": float("nan")},
        {"min_sqnr": float("inf")},
        {"target": "riscv"},
        {"method": "magic"},
        {"bits": "W8"},
    ],
)
def test_values_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        Options(**options)
    flag = next(iter(options)).replace("_", "-")
    assert caught.value.where == f"--{flag}" and caught.value.hint


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'magic' is not known") as caught:
        Options(method="magic")
    assert all(method in caught.value.hint for method in METHODS)
