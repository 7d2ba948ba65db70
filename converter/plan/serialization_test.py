from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import UsageError
from converter.plan.records import OpPlan, Plan, TensorPlan
from converter.plan.serialization import plan_from_json, plan_to_json
from converter.quantization.bit_widths import BitWidths
from converter.quantization.parameters import SMALLEST_SCALE, QuantParams, affine_params
from converter.testing.plans import equalizations_of
from converter.transforms.equalization.site import Equalization
from converter.transforms.equalization.transform import Equalizations
from converter.transforms.nonuniform.quantizer import NonuniformQuantizer
from converter.transforms.nonuniform.transform import NonuniformQuantization

NAMES = st.text(st.characters(codec="utf-8"), max_size=12)
SCALES = st.floats(SMALLEST_SCALE, 2.0**100, width=32)
HERE = Path("plan.json")


@st.composite
def grids(draw: st.DrawFn) -> QuantParams:
    bits, signed, narrow = draw(st.integers(4, 8)), draw(st.booleans()), draw(st.booleans())
    axis = draw(st.none() | st.integers(0, 3))
    scale = draw(st.lists(SCALES, min_size=1, max_size=1 if axis is None else 4))
    lowest = (-(2 ** (bits - 1)) + narrow) if signed else 0
    highest = lowest - narrow + 2**bits - 1 if signed else 2**bits - 1
    return QuantParams(tuple(scale), tuple(draw(st.integers(lowest, highest)) for _ in scale), bits, signed, axis, narrow)


FLOATS = st.builds(lambda reason: TensorPlan("float", None, "", reason), NAMES)
GRIDDED = st.builds(TensorPlan, st.sampled_from(["measured", "fixed", "shared", "derived"]), grids(), NAMES, NAMES)
OPS = st.builds(
    OpPlan,
    NAMES,
    st.sampled_from(["integer", "float"]),
    st.sampled_from(["codes", "float", "fused"]),
    st.dictionaries(st.integers(0, 5), grids(), max_size=2),
    NAMES,
)
NUMBERS = st.lists(st.floats(-1e6, 1e6), max_size=3).map(tuple)
PLANS = st.builds(
    Plan,
    NAMES,
    st.builds(BitWidths, st.integers(4, 8), st.integers(4, 8)),
    NAMES,
    st.dictionaries(NAMES, FLOATS | GRIDDED, max_size=4),
    st.dictionaries(NAMES, OPS, max_size=4),
    st.just(())
    | st.dictionaries(NAMES, st.builds(Equalization, NUMBERS, NUMBERS), min_size=1, max_size=2).map(lambda f: (Equalizations(f),)),
    st.sampled_from(["float", "uint8"]),
    st.dictionaries(NAMES, grids(), max_size=2),
)


@given(plan=PLANS)
def test_a_plan_reads_back_exactly_and_in_order(plan: Plan) -> None:
    text = plan_to_json(plan)
    again = plan_from_json(text, HERE)
    assert again == plan
    assert (list(again.tensors), list(again.ops)) == (list(plan.tensors), list(plan.ops))
    assert plan_to_json(again) == text


def example() -> Plan:
    grid = QuantParams((0.5,), (3,), 8, False)
    weights = QuantParams((0.25, 0.125), (0, 0), 7, True, axis=0, narrow=True)
    tensors = {"x": TensorPlan("measured", grid), "y": TensorPlan("shared", grid, "x"), "z": TensorPlan("float", reason="not read")}
    ops = {"conv": OpPlan("Conv", "integer", "codes", {1: weights}), "softmax": OpPlan("Softmax", "float", reason="slow")}
    return Plan("mse", BitWidths(7, 8), "x86", tensors, ops)


def test_the_text_is_readable() -> None:
    assert (
        plan_to_json(example())
        == """{
 "format": "bridgequant-plan",
 "version": 2,
 "method": "mse",
 "bits": "W7A8",
 "target": "x86",
 "tensors": {
  "x": {
   "kind": "measured",
   "params": {
    "scale": [0.5],
    "zero_point": [3],
    "bits": 8,
    "signed": false
   }
  },
  "y": {
   "kind": "shared",
   "params": {
    "scale": [0.5],
    "zero_point": [3],
    "bits": 8,
    "signed": false
   },
   "source": "x"
  },
  "z": {
   "kind": "float",
   "reason": "not read"
  }
 },
 "ops": {
  "conv": {
   "op_type": "Conv",
   "runs": "integer",
   "writes": "codes",
   "constants": {
    "1": {
     "scale": [0.25, 0.125],
     "zero_point": [0, 0],
     "bits": 7,
     "signed": true,
     "axis": 0,
     "narrow": true
    }
   }
  },
  "softmax": {
   "op_type": "Softmax",
   "runs": "float",
   "writes": "float",
   "reason": "slow"
  }
 }
}
"""
    )


def test_files_of_version_1_are_read() -> None:
    """It had other words for the same."""
    params = affine_params(0, 1, bits=8, signed=False)
    quantizer, one = NonuniformQuantizer("log-int-softmax", 4, params=params), TensorPlan("measured", params)
    ops = {"a": OpPlan("Conv", "integer", "fused"), "b": OpPlan("Softmax", "fake-quantized", "codes")}
    plan = Plan("mse", BitWidths(), "x86", {"x": one}, ops, (NonuniformQuantization({"x": quantizer}),))
    text = (
        plan_to_json(plan)
        .replace('"version": 2', '"version": 1')
        .replace('"params"', '"grid"')
        .replace('"kind": "measured"', '"fate": "measured"')
    )
    text = text.replace('"fused"', '"inside"').replace('"fake-quantized"', '"enclosed"')
    assert plan_from_json(text, HERE) == plan


def test_names_that_look_like_lists_are_left_alone() -> None:
    plan = Plan("m", BitWidths(), "t", {"[\n  1,\n  2\n]": TensorPlan("float", reason="[ 1, 2 ]")}, {})
    assert plan_from_json(plan_to_json(plan), HERE) == plan


def change(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def edit(record: dict[str, Any]) -> None:
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = to

    return edit


def drop(*path: str) -> Callable[[dict[str, Any]], None]:
    def edit(record: dict[str, Any]) -> None:
        for key in path[:-1]:
            record = record[key]
        del record[path[-1]]

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change("format", to="other"), "not a plan of format"),
        (change("version", to=3), "not a plan of format"),
        (drop("method"), "'method'"),
        (change("curvs", to={}), "no 'curvs'"),
        (change("target", to=7), "'target' is 7"),
        (change("tensors", to=[]), "'tensors' is not an object"),
        (change("ops", to={"conv": 3}), "'ops' is not an object"),
        (drop("tensors", "x", "kind"), "'kind'"),
        (change("tensors", "x", "kind", to="guessed"), "kind 'guessed'"),
        (change("tensors", "x", "kind", to=["float"]), "kind"),
        (drop("tensors", "x", "params"), "kind 'measured' with params None"),
        (change("tensors", "z", "params", to={}), "kind 'float' with params"),
        (change("tensors", "x", "source", to=None), "'source' is None"),
        (drop("tensors", "x", "params", "scale"), "'scale'"),
        (change("tensors", "x", "params", "scale", to=0.5), "lists"),
        (change("tensors", "x", "params", "scale", to=["0.5"]), "'0.5' where a number belongs"),
        (change("tensors", "x", "params", "scale", to=[True]), "True where a number belongs"),
        (change("tensors", "x", "params", "scale", to=[0.0]), "too small"),
        (change("tensors", "x", "params", "scale", to=[float("nan")]), "not a number"),
        (change("tensors", "x", "params", "scale", to=[float("inf")]), "too large"),
        (change("tensors", "x", "params", "scale", to=[10**400]), "OverflowError"),
        (change("tensors", "x", "params", "zero_point", to=[1.5]), "1.5 where a number belongs"),
        (change("tensors", "x", "params", "zero_point", to=[float("inf")]), "inf where a number belongs"),
        (change("tensors", "x", "params", "zero_point", to=[300]), "zero point outside"),
        (change("tensors", "x", "params", "zero_point", to=[0, 0]), "2 zero points"),
        (change("tensors", "x", "params", "bits", to=16), "4 to 8"),
        (change("tensors", "x", "params", "bits", to="8"), "'8' where a number belongs"),
        (change("tensors", "x", "params", "signed", to=0), "true or false"),
        (change("tensors", "x", "params", "axis", to="0"), "'0' where a number belongs"),
        (change("tensors", "x", "params", "scales", to=[1.0]), "no 'scales'"),
        (change("tensors", "x", "note", to="mine"), "no 'note'"),
        (drop("tensors", "x", "params", "bits"), "'bits'"),
        (change("ops", "conv", "runs", to="both"), "runs 'both'"),
        (change("ops", "conv", "writes", to="bytes"), "writes 'bytes'"),
        (drop("ops", "conv", "op_type"), "'op_type'"),
        (change("ops", "conv", "constants", to=[1]), "'constants' is not an object"),
        (change("ops", "conv", "constants", to={"1": None}), "'constants' is not an object"),
        (change("ops", "conv", "constants", "one", to={"scale": [1.0], "zero_point": [0], "bits": 8, "signed": True}), "invalid literal"),
    ],
)
def test_a_damaged_plan_is_refused(damage: Callable[[dict[str, Any]], None], message: str) -> None:
    record = json.loads(plan_to_json(example()))
    damage(record)
    with pytest.raises(UsageError, match=message.replace("(", r"\(")) as caught:
        plan_from_json(json.dumps(record), HERE)
    assert caught.value.where == "--plan-in plan.json"
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", '"plan"', "[" * 100_000])
def test_what_is_not_a_plan_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        plan_from_json(text, HERE)


def test_a_plan_without_equalizations_says_nothing_about_them() -> None:
    """As plans did before there were any."""
    assert "equalizations" not in json.loads(plan_to_json(example()))
    assert equalizations_of(plan_from_json(plan_to_json(example()), HERE)) == {}


@pytest.mark.parametrize(
    "equalization",
    [{}, {"scale": 1.0}, {"scale": ["1"]}, {"scale": [True]}, {"scale": [1.0], "shift": 0.5}, {"scale": [1.0], "shift": [None]}, [1.0]],
)
def test_a_damaged_equalization_is_refused(equalization: Any) -> None:
    record = {**json.loads(plan_to_json(example())), "equalizations": {"x": equalization}}
    with pytest.raises(UsageError, match="the plan is damaged"):
        plan_from_json(json.dumps(record), HERE)
