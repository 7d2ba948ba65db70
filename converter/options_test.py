from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from converter.calibration.preprocess import Preprocess
from converter.errors import UsageError
from converter.methods.names import DEFAULT_METHOD, METHOD_NAMES, MethodName
from converter.options import Options
from converter.planning.registry import METHODS
from converter.quantization.bit_widths import BitWidths


def test_defaults() -> None:
    options = Options()
    assert options.method == DEFAULT_METHOD and options.widths == BitWidths(8, 8) and options.samples == 32 and options.seed == 0


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_can_be_chosen(method: MethodName) -> None:
    assert Options(method=method).method == method


@pytest.mark.parametrize("bits", ["w4a6", "W4A6", BitWidths(4, 6)])
def test_bits_are_a_text_or_widths(bits: str | BitWidths) -> None:
    assert Options(bits=bits).bits == Options(bits=bits).widths == BitWidths(4, 6)


def test_texts_stand_for_paths_and_one_pattern_for_several() -> None:
    given: Any = {"exclude": "Conv", "plan_in": "plan.json", "preprocess": "imagenet"}
    options = Options(**given)
    assert (options.exclude, options.plan_in) == (("Conv",), Path("plan.json"))
    assert isinstance(options.preprocess, Preprocess)


def test_a_target_may_be_a_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Options(target=tmp_path / "missing.toml")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 0},
        {"samples": -1},
        {"samples": 10**20},
        {"samples": "4"},
        {"seed": 1.5},
        {"threads": -1},
        {"threads": 100_000},
        {"seed": -1},
        {"seed": 2**40},
        {"min_sqnr": float("nan")},
        {"min_sqnr": float("inf")},
        {"target": "riscv"},
        {"method": "magic"},
        {"io": "int4"},
        {"bits": "W8"},
        {"losses": {"logits": "both"}},
    ],
)
def test_values_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        Options(**options)
    flag = next(iter(options)).replace("_", "-").replace("losses", "loss")
    assert caught.value.where == f"--{flag}" and caught.value.hint


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'magic' is not known") as caught:
        Options(method="magic")  # type: ignore[arg-type]
    assert all(method in caught.value.hint for method in METHODS)
